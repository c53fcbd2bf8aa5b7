"""SR.probe_ext: what a storage holds and offers, as records."""

import pytest

from gespann.pool.plan.probe_results import Found, found_in
from gespann.seams.xenapi.errors import XenApiError
from gespann.sr.equal.group import StoragePool
from gespann.sr.equal.probe_xml import FoundSr, sr_list
from gespann.sr.lvmoiscsi import probe_xml
from gespann.sr.lvmoiscsi.lun import FoundLun, FoundTarget
from tests.unit.pool.world import DEVICE_CONFIG, World

UUID = "00000000-0000-0000-0000-0000000000aa"
ASKED = {key: value for key, value in DEVICE_CONFIG.items() if key != "storagepool"}
SHOWN = {key: value for key, value in ASKED.items() if key != "password"}


async def probed(world: World, config: dict[str, str]) -> list[dict[str, object]]:
    return await world.call("SR.probe_ext", world.host, config, "memory", {})


async def test_storage_pools_to_choose_from_and_then_what_was_made_there(world: World) -> None:
    (offered,) = await probed(world, ASKED)
    assert offered["configuration"] == {**SHOWN, "storagepool": "default"}
    assert (offered["complete"], offered["sr"]) == (True, "")
    assert offered["extra_info"]["Capacity"] == str(world.storage.capacity_bytes)

    sr = await world.make_sr()
    await world.make_vdi(sr)
    await world.call("SR.scan", sr)
    found, again = await probed(world, ASKED)
    assert again["sr"] == ""
    assert found["configuration"] == {**SHOWN, "storagepool": "default"}
    record = world.get("SR", sr)
    assert found["sr"] == {
        "uuid": record["uuid"],
        "name_label": "",
        "name_description": "",
        "free_space": record["physical_size"] - record["physical_utilisation"],
        "total_space": record["physical_size"],
        "clustered": False,
        "health": "healthy",
    }


async def test_no_secret_comes_back(world: World) -> None:
    secret = await world.call("secret.create", {"value": DEVICE_CONFIG["password"], "other_config": {}})
    uuid = world.get("secret", secret)["uuid"]
    (offered,) = await probed(world, {**SHOWN, "password_secret": uuid})
    assert offered["configuration"] == {**SHOWN, "password_secret": uuid, "storagepool": "default"}
    assert "password" not in (await probed(world, ASKED))[0]["configuration"]


async def test_what_is_refused(world: World) -> None:
    for config, kind, code in (
        ({**ASKED, "password": "wrong!"}, "memory", "SR_BACKEND_FAILURE_169"),
        (ASKED, "unheard-of", "SR_UNKNOWN_DRIVER"),
    ):
        with pytest.raises(XenApiError) as refused:
            await world.call("SR.probe_ext", world.host, config, kind, {})
        assert refused.value.code == code


def test_a_group_of_arrays() -> None:
    pools = [StoragePool("default", True, 1, 3, 1000, 400)]
    srs = [FoundSr(UUID, 1000, "default", "array", "of the first floor")]
    there, offered = found_in(sr_list(srs, pools)) or []
    assert there == Found({"storagepool": "default"}, True, {}, UUID, "array", "of the first floor")
    assert (offered.leads, offered.complete, offered.sr_uuid) == ({"storagepool": "default"}, True, "")
    assert offered.extra_info["Freespace"] == "400"


def test_the_dialogue_of_one_lun() -> None:
    """Targets, then LUNs, then what is on it."""
    (target,) = (
        found_in(probe_xml.targets([FoundTarget("10.0.0.1", 3260, "iqn.2026-01.org.example:a")], "10.0.0.1")) or []
    )
    assert (target.leads, target.complete) == ({"targetIQN": "iqn.2026-01.org.example:a"}, False)
    lun = FoundLun(number=0, scsi_id="360", vendor="V", serial="S", size_bytes=1000)
    (found,) = found_in(probe_xml.luns([lun])) or []
    assert (found.leads, found.complete, found.extra_info["size"]) == ({"SCSIid": "360"}, True, "1000")
    assert found_in(probe_xml.repositories([])) == [Found({}, True)]
    there = found_in(probe_xml.repositories([(UUID, "360", 1000, "one", "")]))
    assert there == [Found({}, True, {}, UUID, "one", "")]


@pytest.mark.parametrize("text", ["", "no such host", "<SRlist>", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_what_is_no_answer_of_a_probe(text: str) -> None:
    assert found_in(text) is None
