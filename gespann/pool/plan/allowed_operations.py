"""Keeps ``allowed_operations`` true: derived at the end of each transaction for what it changed and what is near it."""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from gespann.pool.model.database import Database, Transaction
from gespann.pool.plan import legal_moves, storage_view
from gespann.pool.plan.legal_moves import Capabilities
from gespann.pool.plan.storage_view import peek

_RULES = (legal_moves, storage_view, sys.modules[__name__])


def derive_allowed_operations(db: Database, capabilities: Capabilities) -> None:
    """From now on. ``capabilities`` gives what the driver of an SR type can do."""

    def derive(tx: Transaction, changed: set[tuple[str, str]]) -> None:
        for class_name, ref in _near(db, tx, changed):
            if tx.exists(class_name, ref):
                tx.set(class_name, ref, allowed_operations=_allowed(tx, class_name, ref, capabilities))

    db.derive(derive)


def rules_mark(drivers: Mapping[str, Iterable[str]]) -> str:
    """Names the rules that hold now: another text for other rules, or for drivers that can do other things.
    ``drivers``: SR type -> capabilities."""
    digest = hashlib.sha256()
    for module in _RULES:
        digest.update(Path(str(module.__file__)).read_bytes())
    for sr_type in sorted(drivers):
        digest.update(f"{sr_type} {sorted(drivers[sr_type])}".encode())
    return digest.hexdigest()


def refresh_all(db: Database, mark: str) -> None:
    """After a start, when what was written is older than the rules. ``mark``: of the rules; what they have derived is
    written with the records, so that under the same rules there is nothing to do."""
    row = db.sqlite.execute("SELECT value FROM meta WHERE key = 'allowed_operations'").fetchone()
    if row is not None and row[0] == mark:
        return
    with db.transaction() as tx:
        for class_name in ("VM", "VDI", "VBD", "VIF", "SR", "host"):
            for ref in db.all(class_name):
                tx.set(class_name, ref)
        tx.execute("INSERT OR REPLACE INTO meta VALUES ('allowed_operations', ?)", mark)


def _near(db: Database, tx: Transaction, changed: set[tuple[str, str]]) -> set[tuple[str, str]]:
    near: set[tuple[str, str]] = set()
    for class_name, ref in changed:
        record = peek(tx, class_name, ref)
        if record is None:
            continue
        match class_name:
            case "VM":
                near |= {("VM", ref)} | {("VBD", vbd) for vbd in record["VBDs"]} | {("VIF", v) for v in record["VIFs"]}
                vbds = (peek(tx, "VBD", vbd) for vbd in record["VBDs"])
                near |= {("VDI", vbd["VDI"]) for vbd in vbds if vbd is not None}
            case "VBD":
                near |= {("VBD", ref), ("VDI", record["VDI"])}
            case "VDI" | "VIF" | "host":
                near.add((class_name, ref))
            case "SR":
                near.add(("SR", ref))
            case "PBD":
                near |= {("SR", record["SR"])} | _vdis(tx, record["SR"])
            case "host_metrics":
                near |= {("host", host) for host, of in db.all("host").items() if of["metrics"] == ref}
    return near


def _vdis(tx: Transaction, sr: str) -> set[tuple[str, str]]:
    record = peek(tx, "SR", sr)
    return {("VDI", vdi) for vdi in record["VDIs"]} if record else set()


def _allowed(tx: Transaction, class_name: str, ref: str, capabilities: Capabilities) -> list[str]:
    match class_name:
        case "VM":
            return legal_moves.allowed_vm(tx, ref)
        case "VDI":
            return legal_moves.allowed_vdi(tx, ref, capabilities)
        case "VBD":
            return legal_moves.allowed_vbd(tx, ref)
        case "VIF":
            return legal_moves.allowed_vif(tx, ref)
        case "SR":
            return legal_moves.allowed_sr(tx, ref, capabilities)
        case _:
            return legal_moves.allowed_host(tx, ref)
