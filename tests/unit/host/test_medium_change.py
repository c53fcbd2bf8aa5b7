"""A CD is put in although the guest closes the tray meanwhile."""

import libvirt
import pytest

from gespann.host.libvirt.devices import TRAY_TRIES, change_medium

CLOSED = "internal error: unable to execute QEMU command 'blockdev-insert-medium': Tray of the device is not open"


class Drive:
    """A domain whose guest closes the tray ``closes`` times."""

    def __init__(self, closes: int, says: str = CLOSED) -> None:
        self.closes = closes
        self.says = says
        self.calls = 0

    def updateDeviceFlags(self, xml: str, flags: int) -> None:
        self.calls += 1
        if self.calls <= self.closes:
            raise libvirt.libvirtError(self.says)


def test_a_tray_that_is_closed_under_our_hands_is_opened_again():
    drive = Drive(closes=2)
    change_medium(drive, "<disk/>")
    assert drive.calls == 3


def test_a_tray_that_stays_closed_is_an_error():
    drive = Drive(closes=99)
    with pytest.raises(libvirt.libvirtError, match="Tray"):
        change_medium(drive, "<disk/>")
    assert drive.calls == TRAY_TRIES


def test_other_errors_are_not_tried_again():
    drive = Drive(closes=99, says="no such file")
    with pytest.raises(libvirt.libvirtError, match="no such file"):
        change_medium(drive, "<disk/>")
    assert drive.calls == 1
