"""``bin/xe`` against the real coordinator, with a storage driver and a hypervisor that only imagine their work."""

import asyncio
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gespann.host.fake import FakeHypervisor
from gespann.host.fake.machine import none_at_all
from gespann.host.membership import Membership
from gespann.host.server import AgentServer
from gespann.main.coordinator import Coordinator, Settings
from gespann.pool.api.server import Address
from gespann.seams.host_agent import CpuTuning
from gespann.sr.memory import MemoryDriver, MemoryStorage
from tests.unit.pool.world import StrictStorage
from tests.unit.xe.xe_process import ROOT, Ended, run_xe, run_xe_on_bytes

PASSWORD = "correct horse"
CONFIG = " ".join(f"device-config:{word}" for word in ("target=a", "username=grpadmin", "password=grpadmin"))


@dataclass
class Shell:
    """Where a user types ``xe``: root on the coordinator's machine."""

    base: Path
    coordinator: Coordinator
    hypervisor: FakeHypervisor

    async def try_xe(self, line: str, typed: str = "") -> Ended:
        return await run_xe(self.base, *shlex.split(line), typed=typed, GESPANN_XAPI_SOCKET=str(self.base / "run/xapi"))

    async def xe(self, line: str, typed: str = "") -> str:
        """What a command that must work prints."""
        ended = await self.try_xe(line, typed)
        assert (ended.stderr, ended.status) == ("", 0), line
        return ended.stdout.rstrip("\n")

    async def get(self, kind: str, uuid: str, field: str) -> str:
        return await self.xe(f"{kind}-param-get uuid={uuid} param-name={field}")


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    base = Path(tempfile.mkdtemp(prefix="gs-xe-"))  # short: the path of a socket has 108 bytes at most
    for name in ("run", "data", "agent"):
        (base / name).mkdir(mode=0o700)
    (base / "password").write_text(PASSWORD)
    storage = MemoryStorage()
    hypervisor = FakeHypervisor(storage=StrictStorage(storage), run_dir=base / "agent")
    agent = AgentServer(hypervisor, base / "agent/agent.sock", Membership(base / "agent"))
    await agent.start()
    settings = Settings(
        data=base / "data",
        run=base / "run",
        agent=base / "agent/agent.sock",
        listen=(Address("127.0.0.1", 0),),
        name_label="pool1",
        address="127.0.0.1",
        root_password_file=base / "password",
    )
    try:
        async with Coordinator(settings, drivers={"memory": MemoryDriver(storage)}) as coordinator:
            yield Shell(base, coordinator, hypervisor)
    finally:
        await agent.stop()
        shutil.rmtree(base)


async def make_sr(shell: Shell) -> str:
    return await shell.xe(
        f"sr-create name-label=array1 type=memory content-type=user shared=true {CONFIG}"
        " device-config:storagepool=default"
    )


async def make_template(shell: Shell, sr: str) -> str:
    vm = await shell.xe("vm-create name-label=tiny")
    sizes = " ".join(f"{limit}=128MiB" for limit in ("static-min", "static-max", "dynamic-min", "dynamic-max"))
    await shell.xe(f"vm-memory-limits-set uuid={vm} {sizes}")
    vdi = await shell.xe(f"vdi-create sr-uuid={sr} name-label=system virtual-size=300MiB")
    vbd = await shell.xe(f"vbd-create vm-uuid={vm} vdi-uuid={vdi} device=0 bootable=true type=Disk mode=RW")
    await shell.xe(f"vbd-param-set uuid={vbd} other-config:owner=true")
    network = await shell.xe("network-create name-label=lan")
    await shell.xe(f"vif-create vm-uuid={vm} network-uuid={network} device=0 mac=random")
    await shell.xe(f"vm-param-set uuid={vm} is-a-template=true")
    return vm


async def test_the_interface_of_a_vm_that_runs_is_locked(shell: Shell) -> None:
    vm, network = await shell.xe("vm-create name-label=web1"), await shell.xe("network-create name-label=lan")
    vif = await shell.xe(f"vif-create vm-uuid={vm} network-uuid={network} device=0 mac=random")
    await shell.xe(f"network-param-set uuid={network} default-locking-mode=disabled")
    await shell.xe(f"vm-start uuid={vm}")
    await shell.xe(f"vif-param-set uuid={vif} locking-mode=locked ipv4-allowed=10.0.0.7,10.0.0.8")
    await shell.xe(f"vif-param-add uuid={vif} param-name=ipv6-allowed param-key=fd00::7")
    await shell.xe(f"vif-param-remove uuid={vif} param-name=ipv4-allowed param-key=10.0.0.8")
    locked = [await shell.get("vif", vif, name) for name in ("locking-mode", "ipv4-allowed", "ipv6-allowed")]
    assert locked == ["locked", "10.0.0.7", "fd00::7"]
    await shell.xe(f"vif-unplug uuid={vif} force=true")
    assert await shell.get("vif", vif, "currently-attached") == "false"


async def test_what_a_storage_offers(shell: Shell) -> None:
    offered = await shell.xe(f"sr-probe-ext type=memory {CONFIG}")
    assert "configuration : target: a; username: grpadmin; storagepool: default" in " ".join(offered.split())
    sr = await make_sr(shell)
    assert f"uuid: {sr}" in await shell.xe(f"sr-probe-ext type=memory {CONFIG}")


async def test_the_part_of_the_processors_of_a_vm_that_runs(shell: Shell) -> None:
    vm = await shell.xe("vm-create name-label=web1")
    await shell.xe(f"vm-param-set uuid={vm} VCPUs-params:weight=512")
    await shell.xe(f"vm-start uuid={vm}")
    await shell.xe(f"vm-param-set uuid={vm} VCPUs-params:weight=128 VCPUs-params:cap=50")
    await shell.xe(f"vm-param-add uuid={vm} param-name=VCPUs-params mask=1,3")
    running = shell.hypervisor._running[vm]
    assert running.tuning == CpuTuning(weight=128, cap_percent=50, cpus=[1, 3])
    assert await shell.get("vm", vm, "VCPUs-params") == "weight: 128; cap: 50; mask: 1,3"
    refused = await shell.try_xe(f"vm-param-set uuid={vm} VCPUs-params:cap=all")
    assert (refused.status, "VCPUs_params:cap" in refused.stderr) == (1, True)
    assert running.tuning.cap_percent == 50


async def test_a_vm_from_its_making_to_its_end(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    vm = await shell.xe(f"vm-install template=tiny new-name-label=web1 sr-uuid={sr} sm-config:allocation=thin")
    vbd = await shell.xe(f"vbd-list vm-uuid={vm} type=Disk --minimal")
    disk = await shell.get("vbd", vbd, "vdi-uuid")
    assert await shell.xe(f"vdi-param-get uuid={disk} param-name=sm-config param-key=allocation") == "thin"

    await shell.xe("vm-start vm=web1")
    assert await shell.get("vm", vm, "power-state") == "running"
    again = await shell.try_xe("vm-start vm=web1")
    assert again.stderr.splitlines()[1:] == [f"vm: {vm} (web1)", "expected: halted", "actual: running"]

    await shell.xe(f"vm-disk-add vm=web1 disk-size=150MiB device=1 sr-uuid={sr} sm-config:allocation=thick")
    assert await shell.xe(f"vbd-list vm-uuid={vm} currently-attached=true params=userdevice --minimal") == "0,1"

    await shell.xe("vm-shutdown vm=web1")
    assert await shell.get("vm", vm, "power-state") == "halted"
    ended = await shell.xe("vm-uninstall vm=web1", typed="yes\n")
    assert ended.endswith("All objects destroyed")
    assert await shell.xe("vm-list is-control-domain=false --minimal") == ""
    assert await shell.xe("vdi-list params=name-label --minimal") == "system"
    assert await shell.xe("task-list --minimal") == ""


async def test_suspended_resumed_and_uninstalled_while_suspended(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    vm = await shell.xe(f"vm-install template=tiny new-name-label=web1 sr-uuid={sr}")
    await shell.xe("vm-start vm=web1")
    await shell.xe("vm-suspend vm=web1")
    assert await shell.get("vm", vm, "power-state") == "suspended"
    image = await shell.get("vm", vm, "suspend-VDI-uuid")
    assert await shell.get("vdi", image, "type") == "Suspend"
    refused = await shell.try_xe("vm-start vm=web1")
    assert refused.stderr.splitlines()[2:] == ["expected: halted", "actual: suspended"]
    await shell.xe("vm-resume vm=web1")
    assert await shell.get("vm", vm, "power-state") == "running"
    await shell.xe("vm-suspend vm=web1")
    await shell.xe("vm-uninstall vm=web1 force=true")
    assert await shell.xe("vdi-list params=name-label --minimal") == "system"


async def test_back_to_a_checkpoint_and_its_end(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    vm = await shell.xe(f"vm-install template=tiny new-name-label=web1 sr-uuid={sr}")
    await shell.xe("vm-start vm=web1")
    checkpoint = await shell.xe("vm-checkpoint vm=web1 new-name-label=monday")
    assert await shell.get("vm", vm, "power-state") == "running"
    assert await shell.get("snapshot", checkpoint, "power-state") == "suspended"
    await shell.xe(f"snapshot-revert snapshot-uuid={checkpoint}")
    assert await shell.get("vm", vm, "power-state") == "suspended"
    await shell.xe("vm-resume vm=web1")
    assert await shell.get("vm", vm, "power-state") == "running"
    await shell.xe(f"snapshot-uninstall snapshot-uuid={checkpoint} force=true")
    assert await shell.xe("snapshot-list --minimal") == ""
    await shell.xe("vm-uninstall vm=web1 force=true")
    assert await shell.xe("vdi-list params=name-label --minimal") == "system"


async def test_a_suspended_vm_as_a_file_and_its_memory(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    vm = await shell.xe(f"vm-install template=tiny new-name-label=web1 sr-uuid={sr}")
    limits = "static-min=16MiB dynamic-min=64MiB dynamic-max=96MiB static-max=128MiB"
    await shell.xe(f"vm-memory-limits-set vm=web1 {limits}")
    await shell.xe("vm-start vm=web1")
    await shell.xe("vm-memory-target-wait vm=web1")
    for command in (
        "vm-memory-dynamic-range-set vm=web1 min=64MiB max=112MiB",
        "vm-memory-target-set vm=web1 target=80MiB",
    ):
        await shell.xe(command)
        await shell.xe("vm-memory-target-wait vm=web1")
        assert await shell.get("vm", vm, "memory-actual") == await shell.get("vm", vm, "memory-dynamic-max")
    refused = await shell.try_xe("vm-memory-static-range-set vm=web1 min=16MiB max=256MiB")
    assert "expected: halted" in refused.stderr
    await shell.xe("vm-suspend vm=web1")
    await shell.xe(f"vm-export vm=web1 filename={shell.base}/web1.xva preserve-power-state=true")
    await shell.xe("vm-uninstall vm=web1 force=true")
    assert await shell.xe(f"vm-import filename={shell.base}/web1.xva sr-uuid={sr} preserve=true") == vm
    assert await shell.get("vm", vm, "power-state") == "suspended"
    await shell.xe("vm-resume vm=web1")
    await shell.xe("vm-uninstall vm=web1 force=true")


async def test_what_the_driver_refuses(shell: Shell) -> None:
    refused = await shell.try_xe(f"sr-create name-label=x type=memory shared=true {CONFIG}")
    code, params = refused.stderr.splitlines()
    assert code == "Error code: SR_BACKEND_FAILURE_163"
    assert params.startswith("Error parameters: , ")
    assert "<StoragePool>" in params
    assert await shell.xe("sr-list type=memory --minimal") == ""


async def test_absurd_sizes(shell: Shell) -> None:
    sr = await make_sr(shell)
    for size in ("0", "-1", "8000000TiB", "9000000TiB"):
        refused = await shell.try_xe(f"vdi-create sr-uuid={sr} name-label=x virtual-size={size}")
        assert refused.status == 1
        if size == "9000000TiB":  # no 64-bit number of bytes
            assert refused.stderr.startswith("Error: Failed to parse field 'virtual-size'")
        else:
            wanted = ("field: virtual_size", "Error code: SR_BACKEND_FAILURE_79\nError parameters: , Invalid size")
            assert any(text in refused.stderr for text in wanted), refused.stderr
    assert await shell.xe("vdi-list --minimal") == ""


async def test_event_wait_wakes_up(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    vm = await shell.xe("vm-install template=tiny new-name-label=web1")
    waiting = asyncio.ensure_future(shell.xe(f"event-wait class=vm uuid={vm} power-state=running"))
    await shell.xe("vm-start vm=web1")
    assert await asyncio.wait_for(waiting, 120) == ""


async def test_from_another_machine(shell: Shell) -> None:
    at = f"nossl=false -p {shell.coordinator.ports[0]}"
    listed = await shell.try_xe(f"pool-list params=name-label --minimal {at} -u root -pw '{PASSWORD}'")
    assert (listed.stdout, listed.status) == ("pool1\n", 0)
    refused = await shell.try_xe(f"pool-list {at} -u root -pw wrong")
    assert (refused.stderr, refused.status) == ("Authentication failed\nFor usage run: 'xe help'\n", 1)
    nameless = await shell.try_xe(f"pool-list {at}")
    assert nameless.stderr == "Username/password must be specified\nFor usage run: 'xe help'\n"


LISTS = [
    *("vm", "template", "snapshot", "host", "sr", "sm", "vdi", "vbd", "pbd", "vif", "pif", "network", "pool"),
    *("task", "console", "message"),
]


async def test_every_class_lists_and_shows_its_objects(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    await shell.xe(f"vm-install template=tiny new-name-label=web1 sr-uuid={sr}")
    await shell.xe("vm-start vm=web1")
    for kind in LISTS:
        await shell.xe(f"{kind}-list params=all")
        uuids = (await shell.xe(f"{kind}-list params=uuid --minimal")).split(",")
        if uuids[0]:
            assert (await shell.xe(f"{kind}-param-list uuid={uuids[0]}")).startswith("uuid ( RO)"), kind


async def test_a_disk_through_files(shell: Shell) -> None:
    sr = await make_sr(shell)
    vdi = await shell.xe(f"vdi-create sr-uuid={sr} name-label=data virtual-size=15MiB")
    image, copy = shell.base / "image", shell.base / "copy"
    image.write_bytes(bytes(range(256)) * 4096 + bytes(15 * 1024 * 1024 - 1024 * 1024))
    await shell.xe(f"vdi-import uuid={vdi} filename={image} format=raw")
    await shell.xe(f"vdi-export uuid={vdi} filename={copy} format=raw")
    assert copy.read_bytes() == image.read_bytes()


async def test_a_console(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    await shell.xe("vm-install template=tiny new-name-label=web1")
    await shell.xe("vm-start vm=web1")
    ended = await shell.try_xe("console vm=web1", typed="\r\x1d")
    assert (ended.stderr, ended.status) == ("", 0)


async def test_a_vm_through_pipes(shell: Shell) -> None:
    """What comes through a pipe has no length, and nothing at all is no archive."""
    sr = await make_sr(shell)
    await make_template(shell, sr)
    await shell.xe("vm-install template=tiny new-name-label=web1")
    socket = {"GESPANN_XAPI_SOCKET": str(shell.base / "run/xapi")}
    archive, err, status = await run_xe_on_bytes(shell.base, "vm-export", "vm=web1", "filename=", **socket)
    assert (err, status, len(archive) % 512) == ("", 0, 0)
    words = ("vm-import", "filename=/dev/stdin", f"sr-uuid={sr}")
    out, err, status = await run_xe_on_bytes(shell.base, *words, typed=archive, **socket)
    assert (err, status) == ("", 0)
    assert await shell.get("vm", out.decode().strip(), "name-label") == "web1"
    (shell.base / "empty.xva").touch()
    for nothing in ("/dev/null", f"{shell.base}/empty.xva"):
        ended = await shell.try_xe(f"vm-import filename={nothing} sr-uuid={sr}")
        assert (ended.stdout, ended.status) == ("", 1), nothing
        assert "ended before the import was complete" in ended.stderr


async def test_a_vm_as_a_file(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    vm = await shell.xe("vm-install template=tiny new-name-label=web1")
    file = shell.base / "web1.xva"
    assert await shell.xe(f"vm-export vm=web1 filename={file} compress=true") == "Export succeeded"
    again = await shell.try_xe(f"vm-export vm=web1 filename={file}")
    assert (again.status, "exists already" in again.stderr) == (1, True)
    made = await shell.xe(f"vm-import filename={file} sr-uuid={sr}")
    assert (made == vm, await shell.get("vm", made, "name-label")) == (False, "web1")
    refused = await shell.try_xe(f"vm-import filename={file} sr-uuid={sr} preserve=true")
    assert refused.stderr.startswith("The VM that is here is not older than the one in the archive"), refused.stderr
    await shell.xe(f"vm-import filename={file} sr-uuid={sr} preserve=true force=true")

    (shell.base / "broken.xva").write_bytes(file.read_bytes()[:2000])
    broken = await shell.try_xe(f"vm-import filename={shell.base}/broken.xva sr-uuid={sr}")
    assert broken.status == 1
    assert "ended" in broken.stderr or "PREMATURE" in broken.stderr, broken.stderr
    disks = await shell.xe("vdi-list params=name-label --minimal")
    assert disks.split(",").count("system") == 4  # template, web1 as it was, and twice from the file


async def test_a_vm_from_a_web_server(shell: Shell) -> None:
    sr = await make_sr(shell)
    await make_template(shell, sr)
    vm = await shell.xe("vm-install template=tiny new-name-label=web1")
    await shell.xe(f"vm-export vm=web1 filename={shell.base}/web1.xva")
    files = partial(QuietFiles, directory=str(shell.base))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        made = await shell.xe(f"vm-import url={url}/web1.xva sr-uuid={sr}")
        assert (made == vm, await shell.get("vm", made, "name-label")) == (False, "web1")
        assert "answers 404" in (await shell.try_xe(f"vm-import url={url}/web2.xva sr-uuid={sr}")).stderr
        assert (
            "default storage repository does not exist" in (await shell.try_xe(f"vm-import url={url}/web1.xva")).stderr
        )
        both = await shell.try_xe(f"vm-import url={url}/web1.xva filename={shell.base}/web1.xva")
        assert "A URL goes with sr-uuid, preserve and force only" in both.stderr
        server.shutdown()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Tests are read for what fails."""


async def test_a_template_as_a_file_and_records_alone(shell: Shell) -> None:
    sr = await make_sr(shell)
    template = await make_template(shell, sr)
    assert await shell.xe(f"template-export template-uuid={template} filename={shell.base}/t.xva") == "Export succeeded"
    other = await shell.xe(f"vm-import filename={shell.base}/t.xva sr-uuid={sr}")
    assert await shell.xe(f"template-param-get uuid={other} param-name=name-label") == "tiny"
    await shell.xe("vm-install template-uuid=" + other + " new-name-label=web1")
    await shell.xe(f"vm-export vm=web1 filename={shell.base}/m.xva metadata=true")
    assert await shell.xe(f"vm-import filename={shell.base}/m.xva metadata=true dry-run=true") == ""


async def test_a_disk_is_moved_to_another_sr(shell: Shell) -> None:
    here, there = [await make_sr(shell), await make_sr(shell)]
    disk = await shell.xe(f"vdi-create sr-uuid={here} name-label=data virtual-size=30MiB")
    refused = await shell.try_xe(f"vdi-pool-migrate uuid={disk} sr-uuid={here}")
    assert "The VDI is on that SR already" in refused.stderr
    assert refused.status == 1
    moved = await shell.xe(f"vdi-pool-migrate uuid={disk} sr-uuid={there}")
    assert await shell.get("vdi", moved, "sr-uuid") == there
    assert await shell.get("vdi", moved, "name-label") == "data"
    assert await shell.xe(f"vdi-list uuid={disk} --minimal") == ""


async def test_a_machine_runs_on_while_its_disks_are_moved(shell: Shell) -> None:
    here, there = [await make_sr(shell), await make_sr(shell)]
    await make_template(shell, here)
    vm = await shell.xe("vm-install template=tiny new-name-label=web1")
    await shell.xe(f"vm-start uuid={vm}")
    (disk,) = (await shell.xe(f"vm-disk-list uuid={vm} vbd-params=none vdi-params=uuid --minimal")).split(",")
    moved = await shell.xe(f"vdi-pool-migrate uuid={disk} sr-uuid={there}")
    assert await shell.get("vdi", moved, "sr-uuid") == there
    assert await shell.xe(f"vdi-list uuid={disk} --minimal") == ""
    assert await shell.get("vm", vm, "power-state") == "running"

    host = await shell.get("vm", vm, "resident-on")
    host_name = await shell.get("host", host, "name-label")
    to_here = f"vm-migrate uuid={vm} host={host} vdi:{moved}={here}"
    said = (await shell.xe(to_here)).splitlines()
    assert said[1:] == [f"VDI {moved} -> SR {here}", vm]
    assert host_name in said[0]
    (back,) = (await shell.xe(f"vm-disk-list uuid={vm} vbd-params=none vdi-params=uuid --minimal")).split(",")
    assert await shell.get("vdi", back, "sr-uuid") == here

    to_there = f"vm-migrate uuid={vm} vdi:{back}={there} remote-master=127.0.0.1 remote-username=root"
    assert (await shell.try_xe(f"{to_there} remote-password=wrong")).status == 1
    assert await shell.xe(f"{to_there} remote-password='{PASSWORD}' --minimal") == vm
    assert await shell.xe(f"vdi-list sr-uuid={here} name-label=system --minimal") != ""  # the template's
    unknown = await shell.try_xe(f"vm-migrate uuid={vm} vdi:{vm}={there}")
    assert unknown.status == 1
    assert "uuid you supplied was invalid" in unknown.stderr + unknown.stdout


async def test_the_first_machine_of_the_documentation(shell: Shell, tmp_path: Path) -> None:
    """Line by line as it stands there; only where things lie and what they are called is another here."""
    await shell.xe(f"sr-param-set uuid={await make_sr(shell)} name-label=array")
    bridge = await shell.get("network", await shell.xe("network-create name-label=lan"), "bridge")
    (tmp_path / "guest.img").write_bytes(b"boot" * 1024)
    text = (ROOT / "docs/machines.md").read_text(encoding="utf-8")
    block = text.split("## A first machine", 1)[1].split("```", 2)[1]
    lines = [line for line in block.replace("xenbr2", bridge).splitlines() if not line.startswith("xe console")]
    script = "\n".join(lines).replace("var/cache/guest.img", str(tmp_path / "guest.img"))
    assert "guest.img" in script
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        env={
            **os.environ,
            "PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}",
            "GESPANN_XAPI_SOCKET": f"{shell.base}/run/xapi",
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate(b"yes\n")
    assert (process.returncode, errors.decode()) == (0, "")
    assert ": running\n" in said.decode()
    assert said.decode().rstrip().endswith("All objects destroyed")
    assert await shell.xe("vm-list is-control-domain=false --minimal") == ""
    assert await shell.xe("vdi-list --minimal") == ""


async def test_cards_are_bonded_and_two_again(shell: Shell) -> None:
    for device in ("eth1", "eth2"):
        shell.hypervisor.cards[device] = none_at_all()
    host = await shell.xe("host-list --minimal")
    await shell.xe(f"pif-scan host-uuid={host}")
    one, two = [await shell.xe(f"pif-list device={device} --minimal") for device in ("eth1", "eth2")]
    network = await shell.xe("network-create name-label=bonded bridge=bondbr")
    asked = f"bond-create network-uuid={network} pif-uuids="
    for words, answer in (
        (f"{one},{two}", "a Linux bond has nothing like it: active-backup and lacp are there"),
        (f"{one} mode=lacp", "A bond needs more interfaces than this."),
        (f"{one},{two} mode=trunk", "trunk"),
        (f"{one},{two} mode=lacp properties:lacp-time=soon", "lacp-time"),
    ):
        ended = await shell.try_xe(asked + words)
        assert (ended.status, ended.stdout) == (1, "")
        assert answer in ended.stderr
    bond = await shell.xe(f"{asked}{one},{two} mode=lacp properties:lacp-time=fast mac=02:00:00:00:00:77")
    master = await shell.get("bond", bond, "master")
    rows = (await shell.xe("bond-list params=mode,slaves,links-up,primary-slave")).split("\n")
    shown = dict(re.split(r" \( RO\) *: ", row.strip()) for row in rows)
    assert sorted(shown.pop("slaves").split("; ")) == sorted([one, two])
    assert shown == {"mode": "lacp", "links-up": "2", "primary-slave": one}
    assert await shell.get("pif", one, "bond-slave-of") == await shell.get("pif", master, "bond-master-of") == bond
    assert await shell.get("pif", master, "MAC") == "02:00:00:00:00:77"
    assert "belongs to a bond already" in (await shell.try_xe(f"{asked}{one},{two} mode=lacp")).stderr
    await shell.xe(f"bond-param-set uuid={bond} properties:hashing_algorithm=src_mac")
    assert shell.hypervisor.bonds["bond0"].hashing == "src_mac"
    await shell.xe(f"bond-set-mode uuid={bond} mode=active-backup")
    assert await shell.get("bond", bond, "mode") == "active-backup"
    await shell.xe(f"pif-param-set uuid={master} properties:gro=off")
    assert shell.hypervisor.without_gro == {"bond0", "eth1", "eth2"}
    tagged = await shell.xe("network-create name-label=tagged")
    vlan = await shell.xe(f"vlan-create pif-uuid={master} vlan=7 network-uuid={tagged}")
    pif = await shell.get("vlan", vlan, "untagged-PIF")
    await shell.xe(f"pif-reconfigure-ip uuid={pif} mode=static IP=10.0.7.5 netmask=255.255.255.0")
    assert await shell.get("pif", pif, "IP") == "10.0.7.5"
    await shell.xe(f"bond-destroy uuid={bond}")
    assert await shell.xe("bond-list") == ""
    assert (await shell.get("pif", pif, "IP"), await shell.get("pif", pif, "device")) == ("10.0.7.5", "eth1")
