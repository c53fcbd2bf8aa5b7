"""The engine dies and comes back while a Linux host writes."""

import signal
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Configure, Session, SessionList, Target
from tests.product.engine.conftest import MIB, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.kernel_initiator.guest import wait_for
from tests.product.engine.kernel_initiator.linux_host import LinuxHost
from tests.product.engine.kernel_initiator.test_multipath import GOOD, MAP, connect_both

pytestmark = [pytest.mark.engine, pytest.mark.real]
Serve = Callable[..., Target]
FIRST = ["--rw=write", "--bs=64k", "--size=6M"]


def kill_and_restart(engine: EngineProcess, target: Target) -> None:
    """Comes back as the group brings it back: it has no policy until it is told."""
    engine.end(signal.SIGKILL)
    control = engine.start()
    control.call(Configure(targets=[target], chap_users=[]))
    control.close()


def sessions(engine: EngineProcess) -> list[Session]:
    control = Control(engine.socket_path)
    try:
        listed: list[Session] = control.call(SessionList(volume=VOLUME)).sessions
    finally:
        control.close()
    return listed


def wait_until_it_writes(engine: EngineProcess) -> None:
    """The counters are new at each start of the engine."""
    wait_for(lambda: sum(session.written_bytes for session in sessions(engine)) > MIB, "writes go on")


def test_the_initiator_logs_in_again_and_nothing_is_lost(host: LinuxHost, engine: EngineProcess, serve: Serve) -> None:
    target = serve()
    disk = host.connect()  # one path: commands wait for its return
    host.fio_result(host.fio(disk, FIRST)).assert_whole()
    load = host.fio_endless(disk, ["--bsrange=4k-128k", "--offset=16M", "--size=32M"])
    wait_until_it_writes(engine)
    kill_and_restart(engine, target)
    wait_until_it_writes(engine)
    host.end_fio(load).assert_whole()
    host.fio_result(host.fio(disk, [*FIRST, "--verify_only"])).assert_whole()


def test_under_multipath(host: LinuxHost, engine: EngineProcess, serve: Serve) -> None:
    target = serve()
    connect_both(host)
    host.fio_result(host.fio(MAP, FIRST)).assert_whole()
    load = host.fio_endless(MAP, ["--bsrange=4k-128k", "--offset=16M", "--size=32M"])
    wait_until_it_writes(engine)
    kill_and_restart(engine, target)
    wait_for(lambda: len(sessions(engine)) == 2, "two new logins")
    host.wait_for_paths(GOOD, GOOD)
    wait_until_it_writes(engine)
    host.end_fio(load).assert_whole()
    host.fio_result(host.fio(MAP, [*FIRST, "--verify_only"])).assert_whole()
