"""What is decided without doing anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.pool.plan import device_numbers, legal_moves, mac_addresses
from gespann.pool.plan.domain_spec import Names
from gespann.pool.plan.provision_xml import parse_disks
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World


def test_the_tables_speak_the_xenapi() -> None:
    enums = datamodel.enums()
    assert set(legal_moves.VM_MOVES) <= set(enums["vm_operations"])
    assert set(legal_moves.VDI_MOVES) <= set(enums["vdi_operations"])
    assert set(legal_moves.SR_MOVES) <= set(enums["storage_operations"])
    assert set(legal_moves.VM_MOVES) >= legal_moves.TEMPLATE_MOVES
    for states in legal_moves.VM_MOVES.values():
        assert states <= set(enums["vm_power_state"])


async def test_what_is_advertised_is_what_is_not_refused(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    for method in ("VM.start", "VM.pause", "VM.unpause", "VM.hard_shutdown"):
        await world.call(method, vm, *([False, False] if method == "VM.start" else []))
        advertised = set(world.get("VM", vm)["allowed_operations"])
        for operation in datamodel.enums()["vm_operations"]:
            try:
                await world.call("VM.assert_operation_valid", vm, operation)
                allowed = True
            except XenApiError:
                allowed = False
            assert allowed == (operation in advertised), (method, operation)


@given(st.integers(0, device_numbers.VBD_DEVICES - 1))
def test_names_of_disks_are_read_back(number: int) -> None:
    assert device_numbers.disk_number(device_numbers.disk_name(number)) == number
    assert device_numbers.disk_number(str(number)) == number


@given(st.text(max_size=8))
def test_a_device_is_a_number_or_refused(text: str) -> None:
    try:
        number = device_numbers.disk_number(text)
    except XenApiError as refused:
        assert refused.code == "INVALID_DEVICE"  # noqa: PT017
    else:
        assert 0 <= number < device_numbers.VBD_DEVICES


@given(st.text(max_size=300))
def test_any_text_describes_disks_or_is_refused(text: str) -> None:
    try:
        disks = parse_disks(text)
    except XenApiError as refused:
        assert refused.code in ("INVALID_VALUE", "INVALID_DEVICE")  # noqa: PT017
    else:
        assert disks == []


def test_addresses_made_here_are_local_and_unicast() -> None:
    for _ in range(100):
        mac = mac_addresses.random_mac()
        first = int(mac[:2], 16)
        assert (first & 1, first & 2) == (0, 2)
        assert mac_addresses.checked_mac(mac.upper()) == mac


def test_names_of_a_start_differ_by_start_and_device() -> None:
    one = Names("1cedfa6b-57b7-8cb4-cf0a-000000000000", "aaaa", "iqn.2026-01.org.gespann")
    two = Names("1cedfa6b-57b7-8cb4-cf0a-000000000000", "bbbb", "iqn.2026-01.org.gespann")
    assert one.initiator == "iqn.2026-01.org.gespann:1cedfa6b-aaaa"
    assert len({one.opening_id(0), one.opening_id(1), two.opening_id(0)}) == 3


@pytest.mark.parametrize("mac", ["", "02-00-00-00-00-01", "02:00:00:00:00:0g", "03:00:00:00:00:01"])
def test_what_is_no_address(mac: str) -> None:
    with pytest.raises(XenApiError):
        mac_addresses.checked_mac(mac)
