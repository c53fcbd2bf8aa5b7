"""What an administrator does on a Linux host: iscsiadm, multipath, fio. The settings are those of the how-to page."""

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.product.engine.conftest import NAME
from tests.product.engine.kernel_initiator.guest import Guest, Job, wait_for
from tests.product.engine.kernel_initiator.wires import PORT, Wires

PAGE = Path(__file__).resolve().parents[4] / "docs/howto/linux-host.md"
PATIENT = "uxsock_timeout 120000"  # ms: a slow machine's daemon answers late
INITIATOR = "iqn.1993-08.org.debian:01:0123456789ab"


def setting(name: str) -> str:
    """The block of that name on the page."""
    found = re.search(rf"^```{re.escape(name)}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"no block {name} on {PAGE}"
    return found[1]


@dataclass(frozen=True)
class FioResult:
    status: int
    errors: list[int]
    written_bytes: int
    read_bytes: int
    text: str

    def assert_whole(self) -> None:
        assert self.errors, self.text
        assert not any(self.errors), self.text
        assert "verify: bad" not in self.text
        assert self.written_bytes or self.read_bytes, self.text


class LinuxHost:
    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.run = guest.run

    def set_up(self) -> None:
        """Once after its boot."""
        for number, address in enumerate(Wires.guest):
            self.run(f"ip addr add {address}/24 dev eth{number} && ip link set eth{number} up")
        self.guest.write("/etc/iscsi/initiatorname.iscsi", f"InitiatorName={INITIATOR}\n")
        self.run("cat >> /etc/iscsi/iscsid.conf", setting("iscsid.conf"))
        self.run("iscsid </dev/null >/dev/null 2>&1")

    def forget_all(self) -> None:
        """Back to how it was after ``set_up``, whatever a test has left."""
        run = self.guest.attempt
        # First what may wait for a path for ever: without one, a killed fio ends only when its requests fail.
        # Multipathd sets the waiting anew, so once more after its end. Maps are removed without it: multipath -F would
        # ask it.
        maps = "$(dmsetup ls --target multipath | awk '/^3/ { print $1 }')"
        fail = f"for m in {maps}; do dmsetup message $m 0 fail_if_no_path; done"
        run(f"killall -9 fio dd; {fail}; killall multipathd; while pidof multipathd; do usleep 50000; done")
        run(f"{fail}; while pidof fio; do usleep 50000; done; umount /mnt")
        run(f"udevadm settle; for m in {maps}; do dmsetup remove --retry $m; done")
        run("iscsiadm -m node -U all; iscsiadm -m node -o delete")
        run("rm -rf /etc/iscsi/send_targets/* /etc/iscsi/ifaces/* /etc/multipath.conf /etc/multipath/*; dmesg -c")
        left = run("iscsiadm -m session; dmsetup ls --target multipath; cat /proc/mounts | grep /mnt")
        assert not re.search(r"tcp:|^3\w+\t|/mnt", left.out), left.out

    # --- sessions

    def discover(self, address: str, words: str = "") -> str:
        return self.run(f"iscsiadm -m discovery -t sendtargets -p {address} {words}")

    def set_node(self, **fields: str) -> None:
        """Of all targets that are known. ``fields``: names as in a node's record, with ``__`` for a dot. They go into
        the records themselves, so that no secret is a word of a command."""
        new = {name.replace("__", "."): value for name, value in fields.items()}
        for path in self.run("find /etc/iscsi/nodes -type f").split():
            lines = [line for line in self.run(f"cat {path}").splitlines() if line.split(" = ")[0] not in new]
            end = lines.index("# END RECORD")
            lines[end:end] = [f"{name} = {value}" for name, value in new.items()]
            self.guest.write(path, "\n".join(lines) + "\n")

    def chap(self, user: str, secret: str, *, algorithms: str = "", mutual: tuple[str, str] | None = None) -> None:
        fields = {"authmethod": "CHAP", "username": user, "password": secret}
        if algorithms:
            fields["chap_algs"] = algorithms
        if mutual:
            fields |= {"username_in": mutual[0], "password_in": mutual[1]}
        self.set_node(**{f"node__session__auth__{name}": value for name, value in fields.items()})

    def log_in(self, address: str = Wires.engine[0], name: str = NAME, words: str = "") -> str:
        """The disk, such as /dev/sda, once udev has named it."""
        self.run(f"iscsiadm -m node -T {name} -p {address}:{PORT} {words} --login")
        return self.disk(address, name)

    def connect(self, address: str = Wires.engine[0], name: str = NAME) -> str:
        self.discover(address)
        return self.log_in(address, name)

    def disk(self, address: str, name: str = NAME) -> str:
        link = f"/dev/disk/by-path/ip-{address}:{PORT}-iscsi-{name}-lun-0"
        wait_for(lambda: self.guest.attempt(f"test -b {link}").status == 0, link)
        self.run("udevadm settle")
        return self.run(f"readlink -f {link}").strip()

    def sessions(self) -> str:
        return self.guest.attempt("iscsiadm -m session").out

    def size(self, device: str) -> int:
        return int(self.run(f"blockdev --getsize64 {device}"))

    # --- multipath

    def start_multipath(self, more: str = "") -> None:
        """``more``: a line for ``defaults``."""
        self.guest.write(
            "/etc/multipath.conf",
            setting("multipath.conf").replace("defaults {", f"defaults {{\n    {PATIENT}\n    {more}"),
        )
        self.run("multipathd </dev/null >/dev/null 2>&1")
        wait_for(lambda: self.guest.attempt("multipathd show daemon").out.startswith("pid "), "multipathd")

    def paths(self) -> list[dict[str, Any]]:
        """Of all maps, as multipathd shows them."""
        shown = self.guest.attempt("multipathd show maps json")
        if shown.status or not shown.out.startswith("{"):
            return []
        maps = json.loads(shown.out)["maps"]
        return [path for one in maps for group in one["path_groups"] for path in group["paths"]]

    def path_states(self) -> list[tuple[str, str]]:
        """(state in the kernel's map, what the checker says), sorted."""
        return sorted((path["dm_st"], path["chk_st"]) for path in self.paths())

    def wait_for_paths(self, *expected: tuple[str, str]) -> None:
        wanted = sorted(expected)
        wait_for(lambda: self.path_states() == wanted, f"paths {wanted}")

    # --- fio

    def fio(self, device: str, words: Iterable[str]) -> Job:
        """Verifying by checksums; begins to run."""
        fixed = ["--name=verify", f"--filename={device}", "--direct=1", "--ioengine=libaio", "--iodepth=8"]
        fixed += ["--verify=crc32c", "--verify_fatal=1", "--randrepeat=1", "--output-format=json"]
        return self.guest.start("exec fio " + shlex.join([*fixed, *words]))

    def fio_endless(self, device: str, words: Iterable[str]) -> Job:
        """Writes at random and reads back what it wrote, until ``end_fio``."""
        endless = ["--rw=randwrite", "--time_based", "--runtime=3600", "--verify_backlog=64", "--do_verify=1"]
        return self.fio(device, [*endless, *words])

    def end_fio(self, job: Job) -> FioResult:
        assert job.ended() is None, f"fio ended by itself: {job.ended()}"
        self.run(f"kill -INT {job.pid}")
        return self.fio_result(job)

    def fio_result(self, job: Job) -> FioResult:
        done = job.wait(300)
        start = done.out.find("{")
        jobs = json.loads(done.out[start:])["jobs"] if start >= 0 else []
        return FioResult(
            status=done.status,
            errors=[one["error"] for one in jobs],
            written_bytes=sum(one["write"]["io_bytes"] for one in jobs),
            read_bytes=sum(one["read"]["io_bytes"] for one in jobs),
            text=done.out + done.err,
        )
