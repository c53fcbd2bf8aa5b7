"""The engine's front: logins, hostile bodies, prompts, files and transfers, frame by frame."""

import asyncio
import logging
import socket

import pytest

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe import frames
from gespann.xe.server import serve_cli, split_body
from tests.unit.xe.fake_xenapi import PASSWORD, USER, FakeXenApi
from tests.unit.xe.thin_client import Client
from tests.unit.xe.worlds import small_pool

WEB1 = "00000000-0000-4000-8000-000000000014"
ARRAY = "00000000-0000-4000-8000-000000000003"
DISK = "00000000-0000-4000-8000-000000000015"


@pytest.fixture
def api() -> FakeXenApi:
    return small_pool()


@pytest.fixture
def client(api: FakeXenApi) -> Client:
    return Client(api)


def test_the_body() -> None:
    assert split_body(b"vm-list\r\nusername=a\r\npassword=b c") == (None, ["vm-list", "username=a", "password=b c"])
    assert split_body(b"session_id=OpaqueRef:x\nvm-list") == ("OpaqueRef:x", ["vm-list"])


async def test_somebody_from_elsewhere_must_log_in(client: Client) -> None:
    outcome = await client.run("vm-list", local_root=False)
    assert outcome.stderr == "Username/password must be specified\nFor usage run: 'xe help'\n"
    outcome = await client.run(f"vm-list username={USER} password=wrong", local_root=False)
    assert outcome.stderr == "Authentication failed\nFor usage run: 'xe help'\n"
    assert outcome.status == 1
    outcome = await client.run(f"vm-list --minimal username={USER} password='{PASSWORD}'", local_root=False)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert WEB1 in outcome.stdout


async def test_a_session_of_ones_own_is_used_and_left_open(api: FakeXenApi, client: Client) -> None:
    session = await api.call("session.login_with_password", USER, PASSWORD, "", "")
    outcome = await client.run_body(f"session_id={session}\nvm-list\n--minimal".encode(), local_root=False)
    assert outcome.status == 0
    assert session in api.sessions
    assert (await client.run_body(b"session_id=OpaqueRef:no\nvm-list", local_root=False)).status == 1


@pytest.mark.parametrize("line", ["vm-list", "vm-start vm=nobody", "vm-param-get uuid=x param-name=y"])
async def test_sessions_end_with_their_command(api: FakeXenApi, client: Client, line: str) -> None:
    await client.run(line)
    assert api.sessions == set()


async def test_help_needs_no_login_and_what_is_missing_is_told_before_it(client: Client) -> None:
    assert (await client.run("help", local_root=False)).status == 0
    assert "Required parameter not found: uuid" in (await client.run("vm-destroy", local_root=False)).stderr
    assert "Unknown command: vm-fly" in (await client.run("vm-fly", local_root=False)).stderr


@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xff\xfe\x00", b"=", b"vm-list\n" + b"a=b\n" * 5000, b"-pw", b"--"])
async def test_odd_bodies_change_nothing(client: Client, body: bytes) -> None:
    outcome = await asyncio.wait_for(client.run_body(body), 120)
    assert outcome.status == 1
    assert outcome.stderr


async def test_an_unforeseen_failure_is_told_without_its_inside(
    api: FakeXenApi, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> str:
        raise RuntimeError("hush")

    api.local_session = broken  # type: ignore[method-assign]
    outcome = await client.run("vm-list")
    assert outcome.status == 1
    assert "hush" not in outcome.stderr
    assert "RuntimeError" in outcome.stderr


async def test_values_do_not_reach_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await client.run("secret-create value=hush-hush")
        await client.run(f"sr-create name-label=x type=equal shared=true device-config:password=hush-hush {ARRAY}")
    assert "secret-create" in caplog.text
    assert "hush-hush" not in caplog.text


async def test_after_an_error_no_exit_status_is_sent(client: Client) -> None:
    failed = await client.run("vm-start vm=nobody")
    assert frames.EXIT not in [message.tag for message in failed.seen]
    worked = await client.run("vm-list")
    assert worked.seen[-1].tag == frames.EXIT


async def test_a_config_value_from_a_file_of_the_client(api: FakeXenApi, client: Client) -> None:
    client.files["/tmp/pool"] = b"default"
    line = "sr-create name-label=x type=equal shared=true device-config-filename:storagepool=/tmp/pool --minimal"
    assert (await client.run(line)).status == 0
    assert any(pbd["device_config"] == {"storagepool": "default"} for pbd in api.db["PBD"].values())
    outcome = await client.run(line.replace("/tmp/pool", "/tmp/none"))
    assert (outcome.status, outcome.stderr) == (1, "Failed to read /tmp/none\n")


async def test_a_transfer_that_works(api: FakeXenApi, client: Client) -> None:
    def done(label: str, text: str) -> str:
        return api.add("task", name_label=label, status="success", result="", created="20260101T00:00:00Z")

    api._do_task_create = done  # type: ignore[method-assign]
    outcome = await client.run(f"vdi-import uuid={DISK} filename=/tmp/disk format=raw")
    assert (outcome.status, outcome.stderr) == (0, "")
    put = next(message for message in outcome.seen if message.tag == frames.HTTP_PUT)
    assert put.text(0) == "/tmp/disk"
    assert put.text(1).startswith("/import_raw_vdi?session_id=OpaqueRef:local&task_id=OpaqueRef:")
    assert put.text(1).endswith(f"&vdi={DISK}&format=raw")
    assert not api.db["task"]


async def test_a_transfer_that_the_client_could_not_do(api: FakeXenApi, client: Client) -> None:
    client.transfers = False
    outcome = await client.run(f"vdi-export uuid={DISK} filename=/tmp/disk")
    assert (outcome.status, outcome.stderr) == (1, "Error code: CLIENT_ERROR\nError parameters: \n")
    assert not api.db["task"]
    assert "Format zip is none of" in (await client.run(f"vdi-export uuid={DISK} filename=/x format=zip")).stderr


async def test_a_console(client: Client) -> None:
    outcome = await client.run("console vm=db1")
    connect = next(message for message in outcome.seen if message.tag == frames.HTTP_CONNECT)
    assert connect.text() == "/console?uuid=1&session_id=OpaqueRef:local"
    assert outcome.status == 0


@pytest.mark.parametrize("broken", ["VM.provision", "VM.set_suspend_SR", "VDI.set_sm_config"])
async def test_an_install_that_fails_leaves_nothing(api: FakeXenApi, client: Client, broken: str) -> None:
    before = {name: set(api.db[name]) for name in ("VM", "VDI", "VBD")}
    api.fail[broken] = XenApiError("SR_FULL", ["1", "0"])
    outcome = await client.run(f"vm-install template=debian new-name-label=x sr-uuid={ARRAY} sm-config:allocation=thin")
    assert outcome.status == 1
    assert outcome.stderr.startswith("The storage repository has no room for this.")
    assert {name: set(api.db[name]) for name in ("VM", "VDI")} == {name: before[name] for name in ("VM", "VDI")}
    assert not api.db["task"]


async def test_a_disk_that_cannot_be_connected_is_not_left_behind(api: FakeXenApi, client: Client) -> None:
    before = set(api.db["VDI"])
    api.fail["VBD.create"] = XenApiError("DEVICE_ALREADY_EXISTS", ["0"])
    outcome = await client.run("vm-disk-add vm=web1 disk-size=1GiB device=0")
    assert outcome.stderr.startswith("The VM has a device with this name or number already.")
    assert set(api.db["VDI"]) == before


async def test_install_rewrites_the_list_of_disks(api: FakeXenApi, client: Client) -> None:
    disks = '<provision><disk device="0" size="1024" sr="" bootable="true"/></provision>'
    api.add("VM", name_label="blank", is_a_template=True, power_state="Halted", other_config={"disks": disks})
    outcome = await client.run("vm-install template=blank new-name-label=b1")
    assert outcome.status == 0
    made = [vdi for vdi in api.db["VDI"].values() if vdi["name_label"] == "made"]
    assert [api.uuid(vdi["SR"]) for vdi in made] == [ARRAY]
    next(iter(api.db["pool"].values()))["default_SR"] = "OpaqueRef:NULL"
    outcome = await client.run("vm-install template=blank new-name-label=b2")
    assert outcome.stderr.startswith("Error: Failed to find a valid default SR for the Pool.")
    assert [vm["name_label"] for vm in api.db["VM"].values() if vm["name_label"] == "b2"] == []


async def test_each_class_is_fetched_whole_and_once(api: FakeXenApi, client: Client) -> None:
    await client.run("vm-list params=all")
    fetched = [method for method, _ in api.calls]
    assert len(fetched) == len(set(fetched))
    assert all(method.endswith("get_all_records") for method in fetched)


async def test_a_class_that_the_server_lacks(client: Client) -> None:
    small = Client(FakeXenApi(frozenset(["VM", "session", "pool", "host"])))
    outcome = await small.run("vgpu-list")
    assert outcome.stderr == "This server has no such call.\nmethod: VGPU.get_all_records\n"
    assert (await small.run("vm-list params=all")).status == 0


async def test_event_wait_sees_a_change(api: FakeXenApi, client: Client) -> None:
    waiting = asyncio.ensure_future(client.run("event-wait class=vm name-label=web1 power-state=running"))
    while not any(method == "event.from" and params[1] for method, params in api.calls):
        assert not waiting.done()
        await asyncio.sleep(0)
    assert (await client.run("vm-start vm=web1")).status == 0
    assert (await asyncio.wait_for(waiting, 120)).status == 0


async def test_a_client_that_hangs_up_leaves_no_half_of_a_command(api: FakeXenApi) -> None:
    """The engine goes on to the end of what was asked, and closes its session."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=theirs)
    ours.sendall(frames.GREETING)
    ours.close()
    line = f"vm-install\ntemplate=debian\nnew-name-label=x\nsr-uuid={ARRAY}\nsm-config:allocation=thin"
    await asyncio.wait_for(serve_cli(api, line.encode(), reader, writer, local_root=True), 120)
    writer.close()
    made = [vm for vm in api.db["VM"].values() if vm["name_label"] == "x"]
    assert [vm["is_a_template"] for vm in made] in ([False], [])
    assert api.sessions == set()
    assert not api.db["task"]


async def test_a_client_of_another_protocol_is_left_alone(api: FakeXenApi, caplog: pytest.LogCaptureFixture) -> None:
    for greeting in (b"GET / HTTP/1.0\r\n\r\n" * 3, frames.MAGIC + b"\x01\0\0\0\x02\0\0\0"):
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        ours.sendall(greeting)
        await asyncio.wait_for(serve_cli(api, b"vm-destroy\nuuid=x", reader, writer, local_root=True), 120)
        writer.close()
        ours.close()
    assert api.calls == []
    assert caplog.text.count("broke the protocol") == 2


@pytest.mark.parametrize("command", ["vm-start", "vm-resume"])
async def test_a_vm_that_no_host_can_take_is_told_why_of_each(
    api: FakeXenApi, client: Client, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    off, full = api.add("host", name_label="off"), api.add("host", name_label="full")

    def nobody(*_: object) -> str:
        raise XenApiError("NO_HOSTS_AVAILABLE", [])

    def here(vm: str, host: str) -> str:
        if host == off:
            raise XenApiError("HOST_OFFLINE", [host])
        if host == full:
            raise XenApiError("HOST_NOT_ENOUGH_FREE_MEMORY", ["2", "1"])
        return ""

    monkeypatch.setattr(api, "_do_VM_start", nobody)
    monkeypatch.setattr(api, "_do_VM_resume", nobody)
    monkeypatch.setattr(api, "_do_VM_assert_can_boot_here", here, raising=False)
    told = (await client.run(f"{command} vm=web1")).stderr.splitlines()
    assert told[-1] == "No host can take this VM."
    assert told[-3].startswith("off: ")
    assert told[-2] == "full: The host has too little free memory."
