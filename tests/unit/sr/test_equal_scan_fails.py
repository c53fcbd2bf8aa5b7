"""A scan asks for each volume at once. When the array goes away meanwhile, nothing goes on asking."""

import asyncio

import pytest

from gespann.seams.sr_driver import Sr, SrError
from gespann.sr.equal import names
from gespann.sr.equal.group import ListedVolume
from gespann.sr.equal.volumes import Volumes

SR_UUID = "0ff867ef-3121-0e7c-5497-f5c34916727d"


class VanishingGroup:
    """Refuses the first volume that it is asked for, and never answers for the others."""

    def __init__(self) -> None:
        self.waiting = 0

    async def volumes(self) -> list[ListedVolume]:
        uuids = [f"{number:08x}-eb72-3c04-479a-063f5c349167" for number in range(50)]
        return [ListedVolume(names.vdi_volume(SR_UUID, uuid), 15 * 2**20) for uuid in uuids]

    async def volume(self, name: str) -> None:
        self.waiting += 1
        try:
            if self.waiting == 50:
                raise SrError(171, "Unable to logon to Array")
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1


async def test_one_failure_ends_the_others() -> None:
    group = VanishingGroup()
    with pytest.raises(SrError):
        await Volumes(group, None).list(Sr(SR_UUID, {}))  # type: ignore[arg-type]
    assert group.waiting == 0
