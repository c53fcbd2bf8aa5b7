"""XenAPI class host: switched on from afar."""

import logging

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import set_fields
from gespann.pool.steps.host_door import HostOffline
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import wake_on_lan

log = logging.getLogger(__name__)

WAKE_ON_LAN = "wake-on-lan"
MODES = ("", WAKE_ON_LAN)  # "": it is not to be switched on from here
#: how long a machine may take to boot, and how often it is called meanwhile
LIVE_WITHIN_S, CALL_EVERY_S = 600.0, 5.0


@implements("host.set_power_on_mode")
async def set_power_on_mode(call: Call, self: str, power_on_mode: str, power_on_config: dict[str, str]) -> None:
    """Management controllers (iLO, DRAC) and scripts of one's own are refused: nothing here speaks with them."""
    if power_on_mode not in MODES:
        raise XenApiError("INVALID_VALUE", ["power_on_mode", power_on_mode])
    set_fields(call, "host", self, power_on_mode=power_on_mode, power_on_config=power_on_config)


@implements("host.power_on")
async def power_on(call: Call, host: str) -> None:
    """Ends when the host's agent answers; HOST_OFFLINE if that takes too long."""
    db, clock = call.pool.db, call.pool.clock
    if db.get("host", host)["power_on_mode"] != WAKE_ON_LAN:
        raise XenApiError("HOST_POWER_ON_MODE_DISABLED", [])
    macs = [pif["MAC"] for pif in (db.get("PIF", ref) for ref in db.get("host", host)["PIFs"]) if pif["physical"]]
    call.task.allow_cancel()
    deadline_s = clock.monotonic_s() + LIVE_WITHIN_S
    while not _is_live(call, host):
        call.task.check()
        if clock.monotonic_s() > deadline_s:
            raise HostOffline(host)
        try:
            wake_on_lan.wake(macs)
        except (OSError, ValueError) as error:
            raise XenApiError("INTERNAL_ERROR", [f"the host cannot be called: {error}"]) from error
        log.info("%s is called by wake-on-lan", host)
        await clock.sleep(CALL_EVERY_S)


def _is_live(call: Call, host: str) -> bool:
    metrics = call.pool.db.find("host_metrics", call.pool.db.get("host", host)["metrics"])
    return bool(metrics and metrics["live"])
