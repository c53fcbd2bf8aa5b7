"""A CD is put in although the guest closes the tray meanwhile."""

import pytest

from gespann.host.libvirt import devices
from gespann.host.libvirt.devices import TRAY_TRIES, past_the_tray
from gespann.seams.json_lines import SeamError

SAYS = "internal error: unable to execute QEMU command "
CLOSED = SAYS + "'blockdev-insert-medium': Tray of the device is not open"
CLOSED_BEFORE = SAYS + "'blockdev-remove-medium': Tray of device 'ua-disk-3' is not open"


class Drive:
    """Its guest closes the tray ``closes`` times."""

    def __init__(self, closes: int, says: str = CLOSED) -> None:
        self.closes = closes
        self.says = says
        self.calls = 0
        self.opened = 0

    async def change(self) -> None:
        self.calls += 1
        if self.calls <= self.closes:
            raise SeamError("STORAGE", self.says)

    async def open_tray(self) -> None:
        self.opened += 1


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "TRAY_WAIT_S", 0)


@pytest.mark.parametrize("says", [CLOSED, CLOSED_BEFORE])
async def test_a_tray_that_is_closed_under_our_hands_is_opened_again(says):
    drive = Drive(closes=2, says=says)
    await past_the_tray(drive.change, drive.open_tray)
    assert (drive.calls, drive.opened) == (3, 2)


async def test_a_tray_that_stays_closed_is_an_error():
    drive = Drive(closes=99)
    with pytest.raises(SeamError, match="Tray"):
        await past_the_tray(drive.change, drive.open_tray)
    assert drive.calls == TRAY_TRIES


async def test_other_errors_are_not_tried_again():
    drive = Drive(closes=99, says="no such file")
    with pytest.raises(SeamError, match="no such file"):
        await past_the_tray(drive.change, drive.open_tray)
    assert drive.calls == 1
