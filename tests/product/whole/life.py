"""The life of the VM web1, as commands: which state each needs and reaches, and how to get from one to another."""

from tests.product.whole.whole import Whole

NONE, HALTED, RUNNING = "none", "halted", "running"
COMMANDS = {
    "vm-install": ("vm-install template=tiny new-name-label=web1 sr-uuid={sr}", NONE, HALTED),
    "vm-start": ("vm-start vm=web1", HALTED, RUNNING),
    "vm-shutdown": ("vm-shutdown vm=web1", RUNNING, HALTED),
    "vm-uninstall": ("vm-uninstall vm=web1 force=true", HALTED, NONE),
}


def line(whole: Whole, name: str) -> str:
    return COMMANDS[name][0].format(sr=whole.sr)


async def state_of(whole: Whole) -> str:
    if not await whole.xe("vm-list name-label=web1 --minimal"):
        return NONE
    return await whole.xe("vm-list name-label=web1 params=power-state --minimal")


async def bring(whole: Whole, wanted: str) -> None:
    """Each command on the way must work at once."""
    now = await state_of(whole)
    while now != wanted:
        step = HALTED if now != HALTED else wanted
        name = next(name for name, (_, start, end) in COMMANDS.items() if (start, end) == (now, step))
        await whole.xe(line(whole, name))
        now = await state_of(whole)
