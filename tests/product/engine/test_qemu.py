"""QEMU's own iSCSI driver, as a machine opens a disk with it: CHAP, a wrong secret, a resize while it is open."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gespann.seams.engine_socket import (
    Access,
    ChapUser,
    Configure,
    SessionList,
    Target,
    TargetPut,
    VolumeList,
    VolumeResize,
)
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess

pytestmark = pytest.mark.engine
SECRET = "a-secret-of-vm1"


class Machine:
    """QEMU without a guest, told what to do over its QMP. The secret goes in by a file."""

    def __init__(self, port: int, folder: Path, secret: str) -> None:
        given = folder / "chap"
        given.touch(mode=0o600)
        given.write_text(secret)
        disk = f"driver=iscsi,node-name=disk,transport=tcp,portal=127.0.0.1:{port},target={NAME},lun=0"
        words = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]
        words += ["-object", f"secret,id=chap,file={given}"]
        words += ["-blockdev", f"{disk},user=vm1,password-secret=chap,discard=unmap"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def ask(self, command: str, **arguments: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        self.said = ""
        for line in self.process.stdout:
            if not line.startswith("{"):
                self.said += line  # qemu-io, which writes to standard output
                continue
            answer = json.loads(line)
            if "return" in answer or "error" in answer:
                return answer
        raise AssertionError(f"QEMU ended: {self.process.communicate()[1]}")

    def io(self, command: str) -> str:
        """What ``qemu-io`` says of a command on the open disk."""
        answer = self.ask("human-monitor-command", **{"command-line": f'qemu-io disk "{command}"'})
        return self.said + str(answer["return"])

    def size(self) -> int:
        (node,) = self.ask("query-named-block-nodes")["return"]
        return int(node["image"]["virtual-size"])

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def chap(control: Control) -> None:
    target = Target(volume=VOLUME, name=NAME, online=True, access=[Access(chap_user="vm1")])
    control.call(Configure(targets=[target], chap_users=[ChapUser(user="vm1", secret=SECRET)]))


@pytest.fixture
def machine(engine: EngineProcess, chap: None) -> Iterator[Machine]:
    opened = Machine(engine.port, engine.folder, SECRET)
    assert "return" in opened.ask("qmp_capabilities")
    yield opened
    opened.stop()


def test_chap_opens_the_disk(machine: Machine, control: Control) -> None:
    assert machine.size() == 64 * MIB
    (session,) = control.call(SessionList(volume=VOLUME)).sessions
    assert session.chap_user == "vm1"


def test_a_wrong_secret_opens_nothing(engine: EngineProcess, control: Control, chap: None) -> None:
    machine = Machine(engine.port, engine.folder, SECRET + "x")
    error = machine.process.communicate(timeout=120)[1]
    assert machine.process.returncode == 1
    assert "Failed to connect to LUN" in error
    assert SECRET not in error
    assert control.call(SessionList(volume=VOLUME)).sessions == []


def test_a_resize_is_seen_while_the_disk_is_open(machine: Machine, control: Control) -> None:
    assert "wrote 1048576/1048576" in machine.io("write -P 7 0 1M")
    control.call(VolumeResize(volume=VOLUME, size_bytes=128 * MIB))
    # The unit attention that tells of it meets this command, and nobody above notices.
    assert "read 1048576/1048576" in machine.io("read -P 7 0 1M")
    assert machine.ask("block_resize", **{"node-name": "disk", "size": 128 * MIB}) == {"return": {}}
    assert machine.size() == 128 * MIB
    assert "wrote 1048576/1048576" in machine.io("write -P 9 127M 1M")
    assert "Pattern verification failed" not in machine.io("read -P 9 127M 1M")


def test_discards_of_an_open_disk_give_space_back(machine: Machine, control: Control) -> None:
    machine.io("write -P 7 0 32M")
    machine.io("flush")
    assert control.call(VolumeList(volume=VOLUME)).volumes[0].allocated_bytes >= 32 * MIB
    assert "discard 33554432/33554432" in machine.io("discard 0 32M")
    assert control.call(VolumeList(volume=VOLUME)).volumes[0].allocated_bytes < MIB
    assert "Pattern verification failed" not in machine.io("read -P 0 0 32M")


def test_who_has_not_the_right_to_write_reads_and_gets_an_error_for_a_write(machine: Machine, control: Control) -> None:
    """As the destination of a machine that moves has its disks open: an error, with which QEMU pauses a guest, and no
    write-protected disk, which QEMU would not open for writing. Once the right is its own it writes at once."""
    (name,) = {session.initiator for session in control.call(SessionList(volume=VOLUME)).sessions}
    assert "wrote" in machine.io("write -P 1 0 4096")
    put = TargetPut(
        target=Target(
            volume=VOLUME, name=NAME, online=True, access=[Access(chap_user="vm1")], writer="iqn.2026-01.test:b"
        )
    )
    control.call(put)
    assert "error" in machine.io("write -P 2 0 4096")
    assert "error" in machine.io("discard 0 4096")
    assert "read 4096" in machine.io("read -P 1 0 4096")
    control.call(msgspec.structs.replace(put, target=msgspec.structs.replace(put.target, writer=name)))
    assert "wrote" in machine.io("write -P 3 0 4096")
