"""The coordinator as a process of its own, beside a real agent process with a fake hypervisor."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import XenAPI

LIMIT_S = 180.0


@contextmanager
def running(*words: str, log: Path) -> Iterator[subprocess.Popen]:
    with log.open("ab") as out, subprocess.Popen([sys.executable, "-m", *words], stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.kill()


def agent(base: Path):
    return running(
        "gespann.main.agent", "--fake", "--data", f"{base}/agent-data", "--run", f"{base}/agent", log=base / "a"
    )


def coordinator(base: Path, *more: str):
    words = ("--data", f"{base}/data", "--run", f"{base}/run", "--agent", f"{base}/agent/agent.sock", *more)
    return running("gespann.main.coordinator", *words, log=base / "c")


def session_when_up(base: Path, process: subprocess.Popen) -> XenAPI.Session:
    path = f"{base}/run/xapi"
    assert "_" not in path, "the SDK writes / as _"
    deadline = time.monotonic() + LIMIT_S
    while True:
        session = XenAPI.Session(f"http://{path.replace('/', '_')}/", transport=XenAPI.UDSTransport())
        try:
            session.xenapi.login_with_password("root", "")
        except (OSError, http.client.HTTPException):
            assert process.poll() is None, (base / "c").read_text()
            assert time.monotonic() < deadline, (base / "c").read_text()
            time.sleep(0.02)
        else:
            return session


@pytest.fixture
def base(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("p")


def test_first_start_kill_and_start_again(base):
    with agent(base):
        with coordinator(base, "--name-label", "first") as process:
            session = session_when_up(base, process)
            (pool,) = session.xenapi.pool.get_all()
            (host,) = session.xenapi.host.get_all()
            assert session.xenapi.pool.get_name_label(pool) == "first"
            assert session.xenapi.pool.get_master(pool) == host
            session.xenapi.pool.set_name_description(pool, "acknowledged")
            process.send_signal(signal.SIGKILL)
            process.wait(LIMIT_S)
        with coordinator(base, "--name-label", "second") as process:
            session = session_when_up(base, process)
            assert session.xenapi.pool.get_all() == [pool]
            assert session.xenapi.host.get_all() == [host]
            assert session.xenapi.pool.get_name_label(pool) == "first"
            assert session.xenapi.pool.get_name_description(pool) == "acknowledged"
            process.terminate()
            assert process.wait(LIMIT_S) == 0
    assert not (base / "run/xapi").exists()


def test_pool_that_is_known_opens_without_its_agent(base):
    with agent(base), coordinator(base) as process:
        session_when_up(base, process)
        process.terminate()
        process.wait(LIMIT_S)
    with coordinator(base) as process:
        session = session_when_up(base, process)
        assert len(session.xenapi.host.get_all()) == 1


def test_the_host_says_whether_it_serves_in_the_clear(base):
    tls, plain = ("--listen", "127.0.0.1:0"), ("--plain", "127.0.0.1:0")
    for doors, only in ((tls, True), ((*tls, *plain), False), ((), False)):
        with agent(base), coordinator(base, *doors) as process:
            session = session_when_up(base, process)
            (record,) = session.xenapi.host.get_all_records().values()
            assert record["https_only"] is only
            process.terminate()
            assert process.wait(LIMIT_S) == 0


def test_second_coordinator_on_the_same_data_is_refused(base):
    with agent(base), coordinator(base) as process:
        session = session_when_up(base, process)
        with coordinator(base) as other:
            assert other.wait(LIMIT_S) == 1
        assert "another coordinator uses" in (base / "c").read_text()
        assert session.xenapi.pool.get_all()


def test_secrets_are_in_no_log_and_no_file_that_others_can_read(base):
    with agent(base), coordinator(base) as process:
        session = session_when_up(base, process)
        session.xenapi.secret.create({"value": "hush-hush-hush", "other_config": {}})
        password = (base / "data/root.password").read_text().strip()
        for name in ("root", "other"):
            with pytest.raises(XenAPI.Failure):
                session.xenapi.session.no_such_method(name, password)
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    log = (base / "c").read_text()
    for secret in (password, "hush-hush-hush", session.handle or "OpaqueRef:"):
        assert secret not in log
        assert secret.encode() not in command
    for directory in ("data", "run"):
        assert (base / directory).stat().st_mode & 0o077 == 0
        for file in (base / directory).rglob("*"):
            assert file.stat().st_mode & 0o077 == 0, file
    assert os.stat(base / "data/pool.db").st_uid == os.geteuid()


def test_agent_and_coordinator_begin_anew_and_what_runs_runs_on(base):
    with agent(base) as beside, coordinator(base) as process:
        session = session_when_up(base, process)
        (host,) = session.xenapi.host.get_all()
        old = session.handle
        before = session.xenapi.host.get_record(host)
        session.xenapi.host.restart_agent(host)
        deadline = time.monotonic() + LIMIT_S
        while True:
            assert time.monotonic() < deadline, (base / "c").read_text()
            with contextlib.suppress(OSError, http.client.HTTPException):  # it closes its doors just now
                session = session_when_up(base, process)
                if session.host.get_all(old)["Status"] == "Failure":
                    break
            time.sleep(0.02)
        assert (process.poll(), beside.poll()) == (None, None)
        assert session.xenapi.host.get_uuid(host) == before["uuid"]
        while not session.xenapi.host_metrics.get_live(session.xenapi.host.get_metrics(host)):
            assert time.monotonic() < deadline, (base / "a").read_text()
            time.sleep(0.02)
        assert "beginning anew" in (base / "c").read_text()
        assert "beginning anew" in (base / "a").read_text()
        assert "agent.sock" in session.xenapi.host.get_log(host)


def test_what_was_dumped_takes_the_place_of_the_database(base):
    """The dump is taken while the pool works; it is put in place with the coordinator stopped, as the docs say."""
    xe = Path(__file__).resolve().parents[3] / "bin/xe"
    env = {**os.environ, "GESPANN_XAPI_SOCKET": str(base / "run/xapi")}
    with agent(base):
        with coordinator(base) as process:
            session = session_when_up(base, process)
            (pool,) = session.xenapi.pool.get_all()
            session.xenapi.pool.set_name_label(pool, "as it was")
            secret = session.xenapi.secret.create({"value": "hush-hush-hush", "other_config": {}})
            token = session.xenapi.event_from(["pool"], "", 1.0)["token"]
            done = subprocess.run([xe, "pool-dump-database", f"file-name={base}/dump"], env=env, timeout=LIMIT_S)
            assert done.returncode == 0
            assert (base / "dump").stat().st_mode & 0o777 == 0o600
            assert list((base / "data").glob("pool.db.dump-*")) == []
            session.xenapi.pool.set_name_label(pool, "by mistake")
            process.terminate()
            assert process.wait(LIMIT_S) == 0
        for old in (base / "data").glob("pool.db*"):
            old.unlink()
        (base / "dump").rename(base / "data/pool.db")
        with coordinator(base) as process:
            session = session_when_up(base, process)
            assert session.xenapi.pool.get_name_label(pool) == "as it was"
            assert session.xenapi.secret.get_value(secret) == "hush-hush-hush"
            with pytest.raises(XenAPI.Failure) as caught:
                session.xenapi.event_from(["pool"], token, 1.0)
            assert caught.value.details[0] == "EVENTS_LOST"
