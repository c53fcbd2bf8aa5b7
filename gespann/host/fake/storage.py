"""What a fake machine asks before it "opens" a disk: the place where a test says which credentials hold."""

from typing import Protocol

from gespann.host.fake.nbd import FakeMedium
from gespann.seams.host_agent import Domain, FileSource, IscsiSource
from gespann.seams.json_lines import SeamError

Source = IscsiSource | FileSource


def holder_of(domain: Domain, device: int) -> str:
    return f"{domain.uuid}/{domain.start_id}/{device}"


class FakeStorage(Protocol):
    """``holder`` names who opens: "<vm uuid>/<start id>/<device>" or "image/<image id>"."""

    async def open(self, holder: str, source: Source, read_only: bool) -> None:
        """SeamError STORAGE if the array would not let this one in."""
        ...

    async def close(self, holder: str) -> None: ...

    async def hand_on(self, holder: str, to: str) -> None:
        """What the one has open, the other has from now on: the same session under another name."""
        ...

    def admits_writes(self, holder: str) -> bool:
        """False: the array would refuse what this machine, which has the disk open, writes now."""
        ...

    def medium(self, source: Source) -> FakeMedium:
        """The contents, for image exports."""
        ...


MEDIUM_BYTES = 64 * 1024 * 1024


class AnyStorage:
    """Lets everybody in, and remembers who is. ``media`` by target name or path; made at first use if not given."""

    def __init__(self) -> None:
        self.open_now: dict[str, Source] = {}
        self.media: dict[str, FakeMedium] = {}

    async def open(self, holder: str, source: Source, read_only: bool) -> None:
        self.open_now[holder] = source

    async def close(self, holder: str) -> None:
        self.open_now.pop(holder, None)

    async def hand_on(self, holder: str, to: str) -> None:
        self.open_now[to] = self.open_now.pop(holder)

    def admits_writes(self, holder: str) -> bool:
        return True

    def medium(self, source: Source) -> FakeMedium:
        name = f"{source.target}{source.offset_bytes or ''}" if isinstance(source, IscsiSource) else source.path
        return self.media.setdefault(name, FakeMedium(MEDIUM_BYTES))


class LedgerStorage(AnyStorage):
    """Lets in whom the ledger names: ``grant`` and ``revoke`` as an array's access records do. A second holder of a
    target is an AssertionError of the test: two writers is what the product must make impossible."""

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[str, set[tuple[str, str, str]]] = {}
        self.refused: list[str] = []

    def grant(self, target: str, initiator: str, chap_user: str, chap_secret: str) -> None:
        self._records.setdefault(target, set()).add((initiator, chap_user, chap_secret))

    def revoke(self, target: str) -> None:
        """No new sessions; those that are there stay, as on a PS group."""
        self._records.pop(target, None)

    async def open(self, holder: str, source: Source, read_only: bool) -> None:
        if isinstance(source, IscsiSource):
            self._admit(holder, source)
        await super().open(holder, source, read_only)

    def _admit(self, holder: str, source: IscsiSource) -> None:
        if (source.initiator, source.chap_user, source.chap_secret) not in self._records.get(source.target, set()):
            self.refused.append(holder)
            raise SeamError("STORAGE", f"iSCSI: Failed to log in to target {source.target}: Authorization failure(514)")
        others = [
            other
            for other, opened in self.open_now.items()
            if other != holder
            and isinstance(opened, IscsiSource)
            and (opened.target, opened.offset_bytes) == (source.target, source.offset_bytes)
        ]
        if others:
            raise AssertionError(f"{source.target} is open for {others[0]} and would be opened for {holder}")
