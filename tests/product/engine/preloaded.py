"""Calls of the system as a bad disk answers them: a library between the engine and the C library."""

import subprocess
from pathlib import Path

import pytest

LOSES_WRITES = r"""
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
/* fdatasync as on a disk that loses writes, for as long as the file named by SWITCH exists. */
int fdatasync(int fd) {
    if (access(getenv("SWITCH"), F_OK) == 0) { errno = EIO; return -1; }
    return syscall(SYS_fdatasync, fd);
}
"""

STANDS_STILL = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
/* Writes to volumes as on a disk that stands still, for as long as the file named by SWITCH exists. SWITCH.reached is
   made when one has begun. */
static int is_volume(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 4 && memcmp(path + length - 4, ".raw", 4) == 0;
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
    const char *switched = getenv("SWITCH");
    if (access(switched, F_OK) == 0 && is_volume(fd)) {
        char reached[4096];
        snprintf(reached, sizeof reached, "%s.reached", switched);
        close(open(reached, O_CREAT | O_WRONLY, 0600));
        while (access(switched, F_OK) == 0) usleep(1000);
    }
    return syscall(SYS_pwrite64, fd, data, length, offset);
}
"""


def preload(library: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is started from now on has the library; the switch, a file that does not exist yet."""
    source, made, switch = folder / "preloaded.c", folder / "preloaded.so", folder / "switch"
    source.write_text(library)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(made))
    monkeypatch.setenv("SWITCH", str(switch))
    return switch
