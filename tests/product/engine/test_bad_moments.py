"""Killed, restarted, hostile neighbours, hostile bytes."""

import json
import random
import secrets
import signal
import socket
import stat
import subprocess
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, Configure, Hello, Space, Target, VolumeClone, VolumeCreate, VolumeList
from gespann.seams.json_lines import LINE_LIMIT_BYTES, SeamError
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator, Refused

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
Serve = Callable[..., Target]
OPEN = Configure(targets=[Target(volume=VOLUME, name=NAME, online=True, access=[Access()])], chap_users=[])
SYNCHRONIZE_CACHE = b"\x35" + bytes(9)


def test_flushed_data_survives_a_kill_and_the_engine_stays_closed(
    engine: EngineProcess, control: Control, connect: Connect, serve: Serve
) -> None:
    serve()
    initiator = connect().login(NAME)
    data = secrets.token_bytes(1024 * 512)
    assert initiator.write10(100, data).header[3] == 0
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (0, "")
    boot = control.hello.boot_id
    engine.end(signal.SIGKILL)
    again = engine.start()
    assert again.hello.boot_id != boot
    assert again.hello.configured is False
    with pytest.raises(Refused) as refused:
        connect().login(NAME)
    assert refused.value.status == 0x0301
    again.call(OPEN)
    assert connect().login(NAME).read10(100, 1024) == data
    again.close()


def test_kills_while_writing_lose_nothing_that_was_flushed(engine: EngineProcess, control: Control) -> None:
    """Numbers go up, each flushed before the next; after each kill the last one flushed is there."""
    control.call(OPEN)
    flushed = 0
    for kill in range(5):
        initiator = Initiator(engine.port).login(NAME)
        for number in range(flushed + 1, flushed + 20 + kill):
            initiator.write10(number % 64, number.to_bytes(8, "big") * 64, immediate=512)
            assert initiator.status_of(SYNCHRONIZE_CACHE) == (0, "")
            flushed = number
        initiator.write10((flushed + 1) % 64, (flushed + 1).to_bytes(8, "big") * 64, immediate=512)
        engine.end(signal.SIGKILL)
        initiator.close()
        engine.start().call(OPEN)
        reader = Initiator(engine.port).login(NAME)
        assert int.from_bytes(reader.read10(flushed % 64, 1)[:8], "big") == flushed
        assert int.from_bytes(reader.read10((flushed + 1) % 64, 1)[:8], "big") in {
            flushed + 1,
            max(flushed + 1 - 64, 0),
        }
        reader.close()


def test_sigterm_ends_in_order(engine: EngineProcess, control: Control, connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    assert initiator.write10(0, b"\x05" * 512, immediate=512).header[3] == 0
    assert engine.end(signal.SIGTERM) == 0
    assert next((engine.folder / "data/volumes").glob(f"{VOLUME}.*.raw")).read_bytes()[:512] == b"\x05" * 512


def test_a_second_engine_on_the_same_data_is_refused(engine: EngineProcess, control: Control) -> None:
    other = EngineProcess(engine.binary, engine.folder)
    done = subprocess.run(other.command(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "another engine is running on the data directory" in done.stderr
    control.call(Space())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--data is missing"),
        (["--nonsense"], "is not known"),
        (["--data", "/proc/nowhere", "--socket", "/tmp/s"], "cannot make the data directory"),
        (["--data", "x", "--socket", "y", "--portal", "3260"], "is no address and port"),
    ],
)
def test_start_up_errors_are_plain_sentences(engine: EngineProcess, arguments: list[str], words: str) -> None:
    command = [str(engine.binary), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=engine.folder)
    assert done.returncode == 1
    assert words in done.stderr
    assert "panicked" not in done.stderr


def test_the_control_socket_is_the_owners_alone(engine: EngineProcess, control: Control) -> None:
    assert stat.S_IMODE(engine.socket_path.stat().st_mode) == 0o600


def test_the_control_socket_refuses_what_it_does_not_understand(engine: EngineProcess, control: Control) -> None:
    def ask(line: bytes) -> dict[str, object]:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(engine.socket_path))
            raw.sendall(line)
            return json.loads(raw.makefile("rb").readline())  # type: ignore[no-any-return]

    assert ask(b"nonsense\n")["error"]["code"] == "BAD_REQUEST"  # type: ignore[index]
    assert ask(b'{"id":5,"op":"space","args":{}}\n')["error"]["code"] == "BAD_REQUEST"  # type: ignore[index]
    assert ask(b'{"id":5,"op":"hello","args":{"version":2}}\n')["error"]["code"] == "BAD_VERSION"  # type: ignore[index]
    assert ask(b"x" * LINE_LIMIT_BYTES)["error"]["code"] == "BAD_REQUEST"  # type: ignore[index]
    assert control.call(Hello(version=1)).configured is False


def test_hostile_bytes_at_the_portal_hurt_nobody(engine: EngineProcess, connect: Connect, serve: Serve) -> None:
    serve()
    good = connect().login(NAME)
    chance = random.Random(20090401)
    for length in [0, 1, 47, 48, 49, 500, 70_000]:
        for first in [None, 0x43, 0x03, 0x01, 0xFF]:
            noise = bytearray(chance.randbytes(length))
            if first is not None and length:
                noise[0] = first
            with socket.create_connection(("127.0.0.1", engine.port), timeout=120) as raw:
                try:
                    raw.sendall(noise)
                    raw.shutdown(socket.SHUT_WR)
                    while raw.recv(65536):
                        pass
                except OSError:  # closed or reset, whichever the engine was quick enough for
                    pass
    assert good.read10(0, 1) == bytes(512)
    assert engine.process is not None
    assert engine.process.poll() is None
    assert "panicked" not in engine.log.read_text()


def test_hostile_bytes_in_a_session_end_only_that_session(
    engine: EngineProcess, connect: Connect, serve: Serve
) -> None:
    serve()
    good = connect().login(NAME)
    chance = random.Random(7143)
    for _ in range(40):
        bad = connect().login(NAME)
        try:
            for _ in range(20):
                header = bytearray(chance.randbytes(48))
                header[0] = chance.choice([0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x41, 0x42, 0x44, 0x3F])
                header[4] = chance.choice([0, 0, 0, 1])
                header[24:28] = bad.cmd_sn.to_bytes(4, "big")
                bad.cmd_sn += 1
                # Commands must not write: the good session's block is compared below.
                header[32] = chance.choice([0x28, 0x88, 0x12, 0x1A, 0x5A, 0xA3, 0x9E, 0x25, 0x55, 0x42, 0x89])
                bad.socket.sendall(
                    bytes(header[:4]) + bytes([header[4], 0, 0, 8]) + bytes(header[8:]) + bytes(4 * header[4] + 8)
                )
        except OSError:
            pass
        bad.close()
    assert good.status_of(bytes(6))[0] in {0, 2}
    assert engine.process is not None
    assert engine.process.poll() is None
    assert "panicked" not in engine.log.read_text()


def test_a_silent_initiator_is_pinged_and_then_dropped(engine: EngineProcess) -> None:
    engine.options = ["--ping-after", "1", "--missed-pings", "1"]
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=MIB))
    control.call(OPEN)
    initiator = Initiator(engine.port).login(NAME)
    ping = initiator.receive()
    assert (ping.opcode, ping.word(16)) == (0x20, 0xFFFFFFFF)
    with pytest.raises(ConnectionResetError):
        initiator.receive()
    control.close()


def test_a_connection_that_does_not_log_in_is_closed(engine: EngineProcess) -> None:
    engine.options = ["--login-timeout", "1"]
    engine.start().close()
    with socket.create_connection(("127.0.0.1", engine.port), timeout=120) as raw:
        raw.sendall(b"\x43")
        assert raw.recv(1) == b""


def test_clones_over_the_socket_are_whole(control: Control, connect: Connect, serve: Serve) -> None:
    serve()
    assert connect().login(NAME).write10(0, b"\x09" * 4096).header[3] == 0
    copy = "6090a028a030f846d8d6546fbd0130ff"
    info = control.call(VolumeClone(source=VOLUME, volume=copy))
    assert (info.size_bytes, info.thick) == (64 * MIB, False)
    assert control.call(VolumeClone(source=VOLUME, volume=copy)) == info
    with pytest.raises(SeamError, match="NOT_FOUND"):
        control.call(VolumeClone(source="0" * 32, volume="1" * 32))
    with pytest.raises(SeamError, match=r"NO_SPACE|BAD_REQUEST"):
        control.call(VolumeCreate(volume="2" * 32, size_bytes=1 << 50, thick=True))
    assert {volume.volume for volume in control.call(VolumeList()).volumes} == {VOLUME, copy}
