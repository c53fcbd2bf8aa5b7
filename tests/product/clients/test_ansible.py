"""Ansible's modules for this kind of pool (``community.general.xenserver_guest``, ``_info``, ``_powerstate``),
unmodified, run by ``ansible-playbook``. The playbooks in ``ansible/`` assert what they see."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gespann.host.fake.guest import GuestBehaviour
from tests.conftest import ROOT
from tests.product.clients.served_pool import ServedPool
from tests.unit.pool.world import DEVICE_CONFIG, MIB

MODULES = ROOT / "var/cache/ansible-modules"
LIMIT_S = 600.0


@pytest.fixture(scope="module")
def template(pool: ServedPool) -> str:
    """The name of a template with one disk."""
    vm = pool.make_vm("ansible template", memory_static_min=128 * MIB)
    pool.call("VM.set_is_a_template", vm, True)
    return "ansible template"


def play(pool: ServedPool, playbook: str, home: Path, **variables: Any) -> None:
    assert MODULES.is_dir(), f"{MODULES} is missing: run setup/prepare test"
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(MODULES),
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_LOCAL_TEMP": str(home),
        "ANSIBLE_REMOTE_TEMP": str(home),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_NOCOLOR": "1",
    }
    known = {
        "pool_url": pool.url,
        "pool_password": pool.password,
        "ansible_python_interpreter": str(ROOT / ".venv/bin/python"),
        **variables,
    }
    words = [ROOT / ".venv/bin/ansible-playbook", "-i", "localhost,", Path(__file__).parent / "ansible" / playbook]
    words += ["-e", json.dumps(known)]
    ended = subprocess.run(words, env=environment, cwd=home, capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]


def test_a_guest_from_beginning_to_end(pool: ServedPool, template: str, tmp_path: Path) -> None:
    pool.call("SR.create", pool.host, DEVICE_CONFIG, 0, "second", "", "memory", "user", True, {})
    pool.call("network.create", {"name_label": "dmz", "other_config": {}})
    iso = pool.make_vdi("tools.iso", 15 * MIB)
    before = set(pool.call("VDI.get_all"))

    play(pool, "guest.yml", tmp_path, template=template, host=pool.get("host", pool.host)["name_label"])

    (copied,) = pool.call("VM.get_by_name_label", "copied")
    assert pool.call("VM.get_by_name_label", "web") == []
    assert set(pool.call("VDI.get_all")) == before | {pool.get("VBD", v)["VDI"] for v in pool.get("VM", copied)["VBDs"]}
    assert pool.get("VDI", iso)["VBDs"] == []
    assert pool.call("session.get_all_subject_identifiers") == []


def test_guests_of_snapshots_and_what_would_change(pool: ServedPool, tmp_path: Path) -> None:
    vm = pool.make_vm("snapshotted")
    pool.call("VM.snapshot", vm, "before the change", [])
    deaf = pool.get("VM", pool.make_vm("deaf"))
    pool.hypervisor.behave(deaf["uuid"], GuestBehaviour(has_agent=False))
    disks = len(pool.call("VDI.get_all"))

    uuid = pool.get("VM", vm)["uuid"]
    play(pool, "sources.yml", tmp_path, snapshot="before the change", vm_uuid=uuid, deaf="deaf")

    called = [line for line in pool.coordinator.api.audit.lines("") if b"of snapshot" in line or b"of vm" in line]
    assert sum(b"VM.clone" in line for line in called) == 2
    assert not any(b"VM.copy" in line for line in called)
    assert len(pool.call("VDI.get_all")) == disks + 2


def test_a_guest_in_every_power_state(pool: ServedPool, tmp_path: Path) -> None:
    pool.make_vm("switched")
    steps = [
        ("powered-on", "poweredon", True),
        ("powered-on", "poweredon", False),
        ("restarted", "poweredon", True),
        ("reboot-guest", "poweredon", True),
        ("suspended", "suspended", True),
        ("suspended", "suspended", False),
        ("powered-on", "poweredon", True),
        ("shutdown-guest", "poweredoff", True),
        ("powered-on", "poweredon", True),
        ("powered-off", "poweredoff", True),
        ("powered-off", "poweredoff", False),
        ("present", "poweredoff", False),
    ]
    asked, states, changes = zip(*steps, strict=True)
    play(
        pool,
        "powerstate.yml",
        tmp_path,
        guest="switched",
        states=asked,
        expected_states=states,
        expected_changes=changes,
    )
