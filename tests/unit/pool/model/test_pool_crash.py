"""SIGKILL at any moment: what was acknowledged is there, and every transaction is whole."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from gespann.pool.model.database import Database

WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from gespann.pool.model.database import Database

    db = Database(Path(sys.argv[1]))
    for number in range(1_000_000):
        with db.transaction() as tx:
            vm = tx.create("VM", {"name_label": f"vm{number}"})
            for device in range(3):
                tx.create("VBD", {"VM": vm, "userdevice": str(device)})
        print(number, flush=True)
    """
)


def killed_after(path: Path, acknowledged: int) -> int:
    """Runs the writer, kills it without warning, and gives the last number that it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as writer:
        assert writer.stdout is not None
        last = -1
        for line in writer.stdout:
            last = int(line)
            if last >= acknowledged:
                os.kill(writer.pid, signal.SIGKILL)
                rest = [int(more) for more in writer.stdout.read().splitlines() if more]
                return max([last, *rest])
    raise AssertionError("the writer ended by itself")


def test_nothing_acknowledged_is_lost_and_nothing_is_half(tmp_path):
    for acknowledged in (0, 7, 40):
        path = tmp_path / f"{acknowledged}.db"
        last = killed_after(path, acknowledged)
        db = Database(path)
        labels = {record["name_label"] for record in db.all("VM").values()}
        assert {f"vm{number}" for number in range(last + 1)} <= labels
        assert all(len(record["VBDs"]) == 3 for record in db.all("VM").values())
        assert len(db.all("VBD")) == 3 * len(db.all("VM"))
        db.close()
