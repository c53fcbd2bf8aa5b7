"""A machine's part of the processors, as libvirt takes it."""

import libvirt
import pytest

from gespann.host.libvirt.cpu_tuning import scheduler_parameters, tune, tune_at_start
from gespann.seams.host_agent import CpuTuning
from gespann.seams.json_lines import SeamError


class StandIn:
    """A domain that notes what it is told; ``failing`` calls fail as libvirt's do."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.told: list[tuple[object, ...]] = []

    def connect(self) -> "StandIn":
        return self

    def name(self) -> str:
        return "a machine"

    def getInfo(self) -> list[object]:
        return ["x86_64", 4096, 4]

    def vcpus(self) -> tuple[list[tuple[int, int, int, int]], list[object]]:
        return [(0, 1, 0, 0), (1, 1, 0, 0)], []

    def pinVcpuFlags(self, vcpu: int, cpus: tuple[bool, ...], flags: int) -> None:
        self._note("pin", vcpu, cpus, flags)

    def setSchedulerParametersFlags(self, params: dict[str, int], flags: int) -> None:
        self._note("schedule", params, flags)

    def _note(self, *what: object) -> None:
        if what[0] in self.failing:
            raise libvirt.libvirtError("cgroup CPU controller is not mounted")
        self.told.append(what)


LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE


@pytest.mark.parametrize(
    ("weight", "older", "newer"),
    [(0, 1024, 100), (256, 1024, 100), (512, 2048, 200), (1, 4, 2), (65_535, 262_140, 10_000)],
)
def test_a_weight_is_as_large_beside_what_others_have(weight: int, older: int, newer: int) -> None:
    tuning = CpuTuning(weight=weight)
    assert scheduler_parameters(tuning, unified=False)["cpu_shares"] == older
    assert scheduler_parameters(tuning, unified=True)["cpu_shares"] == newer


@pytest.mark.parametrize(("cap", "quota_us"), [(0, -1), (1, 1000), (50, 50_000), (400, 400_000)])
def test_a_cap_is_of_one_processor(cap: int, quota_us: int) -> None:
    parameters = scheduler_parameters(CpuTuning(cap_percent=cap), unified=True)
    assert (parameters["global_period"], parameters["global_quota"]) == (100_000, quota_us)


def test_only_what_differs_is_touched() -> None:
    domain = StandIn()
    tune(domain, CpuTuning(), CpuTuning())
    assert domain.told == []
    tune(domain, CpuTuning(cpus=[0, 2]), CpuTuning())
    assert domain.told == [("pin", vcpu, (True, False, True, False), LIVE) for vcpu in (0, 1)]
    domain.told.clear()
    tune(domain, CpuTuning(weight=512), CpuTuning(cpus=[0, 2]))
    assert [what[0] for what in domain.told] == ["pin", "pin", "schedule"]
    assert domain.told[0][2] == (True,) * 4


def test_a_host_that_cannot_says_so() -> None:
    with pytest.raises(SeamError, match="this host has 4 processors, none with the number 7"):
        tune(StandIn(), CpuTuning(cpus=[0, 7]), CpuTuning())
    for failing, tuning in (("schedule", CpuTuning(cap_percent=50)), ("pin", CpuTuning(cpus=[0]))):
        with pytest.raises(SeamError, match="REFUSED"):
            tune(StandIn(failing), tuning, CpuTuning())


def test_a_machine_starts_all_the_same() -> None:
    tune_at_start(StandIn("schedule", "pin"), CpuTuning(weight=512, cpus=[9]))
