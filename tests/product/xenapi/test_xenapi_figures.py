"""What the pool tells of itself over HTTP: figures, and the audit log."""

import json
import urllib.parse
from xml.etree import ElementTree

import pytest

from gespann.seams.host_agent import CountersReply, DomainCounters
from tests.product.xenapi.conftest import PASSWORD


def login(doors) -> str:
    return doors.json("session.login_with_password", "root", PASSWORD)["result"]


async def test_audit_log_is_read_by_whoever_has_a_session(doors):
    def client():
        session = login(doors)
        doors.json("pool.set_name_label", session, doors.json("pool.get_all", session)["result"][0], "renamed")
        connection = doors.http()
        connection.request("GET", "/audit_log?since=2020-01-01T00:00Z", headers={"Cookie": f"session_id={session}"})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.headers["Content-Type"] == "text/plain"
        assert "'session.login_with_password'" in text.splitlines()[0]
        assert "'ALLOWED' 'OK' 'API' 'pool.set_name_label'" in text
        assert session not in text
        connection.request("GET", f"/audit_log?since=29990101&session_id={session}")
        assert connection.getresponse().read() == b""
        connection.request("GET", "/audit_log")
        assert connection.getresponse().status == 401

    await doors.thread(client)


def fetch(doors, path: str, session: str, **query: object) -> tuple[int, str, str]:
    """Status, content type, text."""
    connection = doors.http()
    connection.request("GET", f"{path}?{urllib.parse.urlencode({'session_id': session, **query})}")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["Content-Type"], text


def take_figures(doors) -> tuple[str, str]:
    """Figures of two moments, of a host and a VM; uuids of both."""
    coordinator = doors.coordinator
    with doors.db.transaction() as tx:
        vm = tx.create("VM", {"name_label": "web1", "power_state": "Running"})
    (host,) = doors.db.all("host")
    uuid = doors.db.get("VM", vm)["uuid"]
    for taken_s in (10.0, 15.0):
        busy = DomainCounters(uuid=uuid, start_id="s1", vcpu_seconds=[taken_s / 2], memory_bytes=1 << 27)
        counters = CountersReply(
            taken_s=taken_s,
            cpu_busy_seconds=[taken_s / 4],
            load_average=0.5,
            memory_total_bytes=1 << 34,
            memory_free_bytes=1 << 33,
            interfaces=[],
            domains=[busy],
        )
        coordinator.figures.take(host, counters)
    return doors.db.get("host", host)["uuid"], uuid


async def test_figures_are_told_as_the_web_console_asks_for_them(doors):
    host, vm = take_figures(doors)

    def client():
        session = login(doors)
        query = {"cf": "AVERAGE", "host": "true", "interval": 5, "json": "true", "start": -60}
        status, kind, text = fetch(doors, "/rrd_updates", session, **query)
        assert (status, kind) == (200, "application/json")
        shown = json.loads(text)
        assert {f"AVERAGE:vm:{vm}:cpu0", f"AVERAGE:host:{host}:memory_total_kib"} <= set(shown["meta"]["legend"])
        assert len(shown["meta"]["legend"]) == shown["meta"]["columns"] == len(shown["data"][0]["values"])
        _, kind, text = fetch(doors, "/rrd_updates", session, start=-60, uuid=vm)
        assert kind == "text/xml"
        legend = [entry.text for entry in ElementTree.fromstring(text).findall("meta/legend/entry")]
        assert f"MAX:vm:{vm}:cpu0" in legend
        assert not any(":host:" in entry for entry in legend)

    await doors.thread(client)


async def test_whole_archives_are_told(doors):
    host, vm = take_figures(doors)

    def client():
        session = login(doors)
        _, _, text = fetch(doors, "/vm_rrd", session, uuid=vm)
        names = [ds.findtext("name") for ds in ElementTree.fromstring(text).findall("ds")]
        assert names[:2] == ["cpu0", "cpu_usage"]
        for query in ({}, {"uuid": host}):
            _, _, text = fetch(doors, "/host_rrd", session, json="true", **query)
            assert "loadavg" in [ds["name"] for ds in json.loads(text)["ds"]]

    await doors.thread(client)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/rrd_updates", {"start": "yesterday"}, 400),
        ("/rrd_updates", {"start": "9" * 400}, 400),
        ("/rrd_updates", {"start": "nan"}, 400),
        ("/rrd_updates", {"cf": "MEDIAN"}, 400),
        ("/vm_rrd", {"uuid": "no-such-uuid"}, 404),
        ("/vm_rrd", {}, 404),
        ("/host_rrd", {}, 404),  # there are no figures yet
        ("/host_rrd", {"uuid": "no-such-uuid"}, 404),
    ],
)
async def test_figures_that_are_not_there(doors, path, query, status):
    def client():
        assert fetch(doors, path, login(doors), **query)[0] == status

    await doors.thread(client)
