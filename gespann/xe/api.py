"""What the engine needs of the coordinator: XenAPI calls, injected. The engine knows no other way to the pool."""

from typing import Any, Protocol

NULL_REF = "OpaqueRef:NULL"
API_VERSION = "2.23"  # what the engine tells the server it was written for, at login

Record = dict[str, Any]


class XenApi(Protocol):
    async def call(self, method: str, *params: Any) -> Any:
        """One XenAPI call, as ``call("VM.start", session, vm, False, False)``; ``Async.`` methods give a task's ref.

        Values are plain Python: str, int, float, bool, list, dict; dates as ``20260101T00:00:00Z``, references as
        ``OpaqueRef:...``. XenApiError: what the API answers with Status Failure.
        """
        ...

    async def local_session(self) -> str:
        """A session with every right, for root on this host who came through the Unix socket."""
        ...
