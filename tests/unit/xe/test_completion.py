"""completion/xe.bash in a real bash, asking the real ``xe``, which asks the engine."""

import asyncio
import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gespann.main.xe_completion import written_anew
from tests.unit.xe.worlds import small_pool
from tests.unit.xe.xe_process import ROOT, Door


@pytest.fixture
async def unix(tmp_path: Path) -> AsyncIterator[str]:
    api = small_pool()
    shown = {"target": "IP address of the array; or its name", "password": "of the account (hidden, always)"}
    api.add("SM", type="equal", configuration=shown)
    api.add("SM", type="iso", configuration={"location": "a directory"})
    permission = api.add("role", name_label="vm.start")
    api.add("role", name_label="pool-admin", subroles=[permission])
    async with await asyncio.start_unix_server(Door(api, local_root=True), tmp_path / "xapi"):
        yield str(tmp_path / "xapi")


async def complete(unix: str, line: str, before: str = "") -> list[str]:
    """What bash would offer for ``line`` with the cursor at its end, after a command ``before``."""
    script = (
        f"source {shlex.quote(str(ROOT / 'completion/xe.bash'))}\n"
        f"COMP_LINE={shlex.quote(line)} COMP_POINT=${{#COMP_LINE}}; COMP_POINT={len(line)}\n"
        "COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'\n"
        f"{before}\n"
        '_xe; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    process = await asyncio.create_subprocess_exec(
        *("bash", "--norc", "-c", script),
        env={"PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}", "GESPANN_XAPI_SOCKET": unix, "HOME": "/nonexistent"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert err == b""
    return [word for word in out.decode().splitlines() if word]


WEB1 = "00000000-0000-4000-8000-000000000014"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("xe vm-sta", ["vm-start"]),
        ("xe -s host -u root vm-rese", ["vm-reset-powerstate"]),
        ("xe help sr-cre", ["sr-create"]),
        ("xe sr-create na", ["name-label=", "name-description="]),
        ("xe sr-create dev", ["device-config:"]),
        ("xe vm-start ", ["force=", "on=", "paused=", "vm=", "uuid=", "name-label=", "--minimal"]),
        ("xe vm-start vm=", ["web1", "db1"]),
        ("xe vm-start vm=w", ["web1"]),
        ("xe vm-start force=", ["true", "false"]),
        ("xe vm-param-get uuid=00000000-0000-4000-8000-000000000014 param-name=power", ["power-state"]),
        ("xe vm-param-list uuid=00000000-0000-4000-8000-00000000001", [WEB1, WEB1[:-1] + "9"]),
        ("xe vm-list params=name-label,power", ["name-label,power-state"]),
        ("xe vm-install template=", ["debian"]),
        ("xe vm-cd-insert cd-name=", ["debian.iso"]),
        ("xe host-disable host=", ["host1"]),
        ("xe vm-disk-add sm-config:allocation=", ["thin", "thick"]),
        ("xe vdi-list sr-uuid=", ["00000000-0000-4000-8000-000000000003", "00000000-0000-4000-8000-000000000004"]),
        ("xe sr-create name-label=a type=", ["equal", "iso"]),
        ("xe sr-probe type=e", ["equal"]),
        ("xe sr-create type=equal device-config:", ["target=", "password="]),
        ("xe sr-create type=equal device-config-filename:", ["password="]),
        (
            "xe sr-create type=equal dev",
            ["device-config:target=", "device-config:password=", "device-config-filename:password="],
        ),
        ("xe sr-create type=equal device-config:ta", ["target="]),
        ("xe sr-create type=none device-config:", []),
        ("xe sr-create content-type=", ["user", "iso"]),
        ("xe vbd-create type=", ["Disk", "CD"]),
        ("xe vbd-create mode=", ["ro", "rw"]),
        ("xe vdi-create type=", ["user", "system"]),
        ("xe vdi-create sm-config:snap-depletion=d", ["delete-oldest"]),
        ("xe vmss-create type=snapshot", ["snapshot", "snapshot_with_quiesce"]),
        ("xe vmss-create frequency=", ["hourly", "daily", "weekly"]),
        ("xe vm-list power-state=h", ["halted"]),
        ("xe vm-param-set actions-after-crash=Core", ["Core\\ dump\\ and\\ destroy", "Core\\ dump\\ and\\ restart"]),
        ("xe vif-param-set locking-mode=l", ["locked"]),
        ("xe network-param-set default-locking-mode=", ["unlocked", "disabled"]),
        ("xe pif-reconfigure-ip mode=", ["none", "dhcp", "static"]),
        ("xe vm-param-set is-a-template=", ["true", "false"]),
        ("xe vm-export metadata=t", ["true"]),
        ("xe vdi-copy into-vdi-uuid=00000000-0000-4000-8000-000000000011", ["00000000-0000-4000-8000-000000000011"]),
        ("xe event-wait class=vm", ["vm", "vmss"]),
        ("xe subject-role-add role-name=", ["pool-admin"]),
        ("xe nonsense-command x=", []),
    ],
)
async def test_offers(unix: str, line: str, expected: list[str]) -> None:
    assert await complete(unix, line) == expected


async def test_files_are_offered_for_filename(unix: str, tmp_path: Path) -> None:
    (tmp_path / "disk.raw").touch()
    assert await complete(unix, f"xe vdi-import filename={tmp_path}/di") == [f"{tmp_path}/disk.raw"]


async def test_a_name_is_only_a_name(tmp_path: Path) -> None:
    """Whoever may name a VM must not run commands in the shell of who completes its name, now or at Enter."""
    mark = tmp_path / "mark"
    names = [f"$(touch${{IFS}}{mark})", f"`touch${{IFS}}{mark}`=", "`reboot`", "*", "two words", "plain-1.2"]
    api = small_pool()
    for name in names:
        api.add("VM", name_label=name, power_state="Halted", is_a_template=True, is_a_snapshot=False)
    async with await asyncio.start_unix_server(Door(api, local_root=True), tmp_path / "xapi"):
        offered = await complete(str(tmp_path / "xapi"), "xe vm-install template=")
    assert not mark.exists()
    line = f"printf '%s\\n' {' '.join(offered)}"  # as they would stand on the command line
    shell = await asyncio.create_subprocess_exec("bash", "-c", line, stdout=asyncio.subprocess.PIPE, cwd="/")
    typed, _ = await shell.communicate()
    assert set(names) <= set(typed.decode().splitlines())
    assert not mark.exists()
    assert "plain-1.2" in offered  # no quoting where none is needed


async def test_xe_is_asked_where_it_was_typed(unix: str) -> None:
    """Its directory need not be in the path."""
    program = ROOT / "bin/xe"
    words = f"COMP_WORDS=({shlex.quote(str(program))} vm-sta); PATH=/usr/bin:/bin"
    assert await complete(unix, f"{program} vm-sta", words) == ["vm-start"]


def test_what_fields_may_be_is_what_the_declarations_say() -> None:
    text = (ROOT / "completion/xe.bash").read_text(encoding="utf-8")
    assert text == written_anew(text), "run: python -m gespann.main.xe_completion completion/xe.bash"
    assert "Core dump and restart" in text
