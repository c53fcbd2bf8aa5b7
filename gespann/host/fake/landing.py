"""Where fake machines wait that are to come from another fake host of the same process: by ticket."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gespann.seams.host_agent import DomainSpec

if TYPE_CHECKING:
    from gespann.host.fake.hypervisor import FakeHypervisor


@dataclass(frozen=True)
class Expected:
    hypervisor: "FakeHypervisor"
    spec: DomainSpec


_expected: dict[str, Expected] = {}


def expect(ticket: str, given: Expected) -> None:
    _expected[ticket] = given


def expected(ticket: str) -> Expected | None:
    return _expected.get(ticket)


def forget(ticket: str) -> None:
    _expected.pop(ticket, None)
