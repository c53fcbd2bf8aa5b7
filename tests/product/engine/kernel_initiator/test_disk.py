"""The volume as a disk of a Linux host: file system, trim, resize, write protection."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gespann.seams.engine_socket import Target, TargetPut, VolumeResize
from tests.product.engine.conftest import MIB, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.kernel_initiator.guest import wait_for
from tests.product.engine.kernel_initiator.linux_host import LinuxHost

pytestmark = [pytest.mark.engine, pytest.mark.real]
Serve = Callable[..., Target]
DATA = "yes something else than zeroes | dd iflag=fullblock"  # quicker than chance


def used(engine: EngineProcess) -> int:
    """What the data directory occupies, in bytes, as ``du`` sees it."""
    data: Path = engine.folder / "data"
    shown = subprocess.run(["du", "-s", "-B1", str(data)], capture_output=True, text=True, check=True).stdout
    return int(shown.split()[0])


def test_a_file_system_keeps_what_was_written(host: LinuxHost, control: Control, serve: Serve) -> None:
    target = serve()
    disk = host.connect()
    host.run(f"mkfs.ext4 -q {disk} && mount {disk} /mnt")
    host.run("dd if=/dev/urandom of=/mnt/file bs=1M count=8; cp /mnt/file /mnt/copy")
    sums = host.run("md5sum /mnt/file /mnt/copy | cut -d' ' -f1").split()
    assert len(set(sums)) == 1
    host.run("umount /mnt && iscsiadm -m node -U all")
    control.call(TargetPut(target=target))
    again = host.log_in()
    host.run(f"e2fsck -f -n {again} && mount {again} /mnt")
    assert host.run("md5sum /mnt/file /mnt/copy | cut -d' ' -f1").split() == sums


def test_trimmed_space_comes_back(host: LinuxHost, engine: EngineProcess, serve: Serve) -> None:
    serve()
    disk = host.connect()
    blank = used(engine)
    host.run(f"mkfs.ext4 -q {disk} && mount {disk} /mnt")
    empty = used(engine)
    host.run(f"{DATA} of=/mnt/file bs=1M count=24 conv=fsync")
    full = used(engine)
    assert full - empty >= 23 * MIB
    host.run("rm /mnt/file && sync && /sbin/fstrim -v /mnt")
    wait_for(lambda: used(engine) - empty < 2 * MIB, "space given back")
    host.run("umount /mnt")
    host.run(f"{DATA} of={disk} bs=1M count=16 conv=fsync")
    assert used(engine) - blank >= 16 * MIB
    host.run(f"/sbin/blkdiscard {disk}")
    # What is left are the logs of the map.
    wait_for(lambda: used(engine) - blank < 3 * MIB, "all space given back")
    assert host.run(f"cmp -n {32 * MIB} {disk} /dev/zero && echo same") == "same\n"


def test_zeroes_and_holes(host: LinuxHost, engine: EngineProcess, serve: Serve) -> None:
    """Zeroing is WRITE SAME: with the UNMAP bit for a hole, and without it where the zeroes shall keep their space."""
    serve()
    disk = host.connect()
    host.run(f"{DATA} of={disk} bs=1M count=16 conv=fsync")
    host.run(f"/sbin/blkdiscard --zeroout --length {8 * MIB} {disk}")
    full = used(engine)
    assert full >= 16 * MIB
    host.run(f"/usr/bin/fallocate --punch-hole --length {16 * MIB} {disk}")
    wait_for(lambda: full - used(engine) >= 15 * MIB, "the hole")
    assert host.run(f"cmp -n {16 * MIB} {disk} /dev/zero && echo same") == "same\n"


def test_a_resize_is_seen(host: LinuxHost, control: Control, serve: Serve) -> None:
    """By the unit attention at the next command, and after a rescan as the new size; the file system grows in use."""
    serve()
    disk = host.connect()
    host.run(f"mkfs.ext4 -q {disk} && mount {disk} /mnt && {DATA} of=/mnt/file bs=1M count=16 conv=fsync")
    before = host.run("md5sum /mnt/file")
    control.call(VolumeResize(volume=VOLUME, size_bytes=160 * MIB))
    host.run("echo more > /mnt/more && sync /mnt/more")
    assert "Capacity data has changed" in host.run("dmesg")
    assert host.size(disk) == 64 * MIB
    host.run("iscsiadm -m session --rescan")
    assert host.size(disk) == 160 * MIB
    host.run(f"resize2fs {disk}")
    host.run("/usr/bin/fallocate --length 120M /mnt/large")
    host.run(f"{DATA} of=/mnt/large bs=1M seek=112 count=8 conv=notrunc,fsync")
    assert host.run("md5sum /mnt/file") == before
    host.run("umount /mnt")
    control.call(VolumeResize(volume=VOLUME, size_bytes=96 * MIB))
    host.run("iscsiadm -m session --rescan")
    assert host.size(disk) == 96 * MIB
    beyond = host.guest.attempt(f"dd if={disk} of=/dev/null bs=1M skip=96 count=1 iflag=direct")
    assert "1+0 records" not in beyond.err


def test_a_write_protected_volume_is_read_only(host: LinuxHost, serve: Serve) -> None:
    serve(read_only=True)
    disk = host.connect()
    assert host.run(f"blockdev --getro {disk}") == "1\n"
    assert host.guest.attempt(f"dd if=/dev/zero of={disk} bs=4096 count=1 conv=fsync").status != 0
    host.run(f"dd if={disk} of=/dev/null bs=1M count=4")


@pytest.mark.parametrize("block_size", [512, 4096])
def test_what_fio_writes_it_reads_back(host: LinuxHost, serve: Serve, block_size: int) -> None:
    serve(block_size=block_size)
    disk = host.connect()
    assert host.run(f"/sbin/blockdev --getss --getpbsz {disk}").split() == [str(block_size), str(block_size)]
    sizes = [f"--bsrange={block_size}-256k", f"--blockalign={block_size}"]
    words = ["--rw=randwrite", *sizes, "--size=4M", "--iodepth=32"]
    host.fio_result(host.fio(disk, words)).assert_whole()
