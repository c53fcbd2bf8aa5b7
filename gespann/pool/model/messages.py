"""Messages: what an administrator should come to know, the newest ``KEPT`` of them."""

from gespann.pool.model.database import Database, Transaction

KEPT = 10_000


def leave(
    db: Database, tx: Transaction, *, name: str, priority: int, cls: str, obj_uuid: str, body: str, timestamp: str
) -> str:
    """A message about the object with that uuid; its ref. The oldest goes if there are too many."""
    fields = {"name": name, "priority": priority, "cls": cls, "obj_uuid": obj_uuid, "body": body}
    ref = tx.create("message", {**fields, "timestamp": timestamp})
    there = db.all("message")
    surplus = len(there) + 1 - KEPT
    for oldest in [old for old, _ in zip(there, range(max(0, surplus)), strict=False)]:
        tx.destroy("message", oldest)
    return ref
