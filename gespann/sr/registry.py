"""All storage repository drivers, by SR type. A new driver is a folder here and a line in this map
(``docs/howto/sr-driver.md``). ``memory`` is not in it: tests and the fake product add it themselves."""

from collections.abc import Callable

from gespann.seams.sr_driver import SrDriver
from gespann.sr.equal import EqualDriver
from gespann.sr.iso import IsoDriver
from gespann.sr.lvmoiscsi import LvmoiscsiDriver

DRIVERS: dict[str, Callable[[], SrDriver]] = {
    "equal": EqualDriver,
    "iso": IsoDriver,
    "lvmoiscsi": LvmoiscsiDriver,
}
