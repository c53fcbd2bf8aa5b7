"""What ``xe`` says to wrong input, word for word, from the client down to a real array; and that nothing of it is left.

The script is a conversation, in the form of ``tests/product/xe``, with {names} for what differs from run to run.
After a change that is meant, ``GESPANN_WRITE_GOLDEN=1`` writes it anew: read the difference before it is kept.
"""

import os
import re
from pathlib import Path

import pytest

from tests.product.whole.life import HALTED, bring
from tests.product.whole.whole import Whole
from tests.product.xe.test_golden_scripts import parse
from tests.unit.xe.xe_process import Ended

pytestmark = pytest.mark.engine
SCRIPT = Path(__file__).parent / "bad_input.txt"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VOLUME = re.compile(r"XenStorage[0-9a-f]+")
SPACE = re.compile(r"(?<=<size>)\d+|(?<=<freespace>)\d+|(?<=<capacity>)\d+|[0-9.]+(MB|GB|TB)|[0-9]+ bytes")


def shown(whole: Whole, ended: Ended) -> str:
    stderr = ended.stderr.replace(whole.password, "{password}").replace(str(whole.ssh_door.port), "{port}")
    for pattern, name in ((UUID, "{uuid}"), (VOLUME, "{volume}"), (SPACE, "{size}")):
        stderr = pattern.sub(name, stderr)
    errors = "".join(f"! {line}\n" for line in stderr.splitlines())
    return UUID.sub("{uuid}", ended.stdout) + errors + (f"= {ended.status}\n" if ended.status else "")


async def test_says_exactly(whole: Whole) -> None:
    await whole.make_template()
    await bring(whole, HALTED)
    await whole.group.cli("pool create small capacity 100MB")
    password_free = whole.device_config(password="", storagepool="")
    values = {
        "sr": whole.sr,
        "config": f"{password_free} device-config:storagepool=default",
        "poolless": password_free,
        "untargeted": whole.device_config(password="", target="", control=""),
        "badport": whole.device_config(password="", port="99999"),
        "pbd": await whole.xe(f"pbd-list sr-uuid={whole.sr} --minimal"),
        "password": f"device-config:password={whole.password}",
        "vdi": await whole.xe("vbd-list vm-name-label=web1 type=Disk params=vdi-uuid --minimal"),
        "network": "ffffffff-0000-4000-8000-000000000000",
    }
    before, written = whole.state.volumes(), ""
    for step in parse(SCRIPT.read_text()):
        printed = shown(whole, await whole.try_xe(step.line.format(**values)))
        if printed and "=" not in printed and "{uuid}" in printed:  # made on purpose, for what follows
            values["made"] = (await whole.xe("sr-list name-label=tight --minimal")) or values.get("made", "")
        if "GESPANN_WRITE_GOLDEN" not in os.environ:
            assert printed == step.printed, f"xe {step.line}"
        written += "".join(f"{line}\n" for line in [*step.remarks, f"$ xe {step.line}"]) + printed
    if "GESPANN_WRITE_GOLDEN" in os.environ:
        SCRIPT.write_text(written)
    made = set(whole.state.volumes()) - set(before)
    assert [name.endswith("-management") for name in made] == [True], made  # that of the SR "tight"
    await whole.settled("bad input")
