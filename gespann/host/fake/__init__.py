"""A hypervisor without QEMU, good enough to run the whole product on, in milliseconds.

fake = FakeHypervisor(storage=LedgerStorage(...))
fake.behave(uuid, GuestBehaviour(obeys_shutdown=False))
fake.fail_next("create", SeamError("STORAGE", "..."))
"""

from gespann.host.fake.guest import GuestBehaviour
from gespann.host.fake.hypervisor import FakeHypervisor
from gespann.host.fake.storage import AnyStorage, FakeStorage, LedgerStorage

__all__ = ["AnyStorage", "FakeHypervisor", "FakeStorage", "GuestBehaviour", "LedgerStorage"]
