"""Counters of machines that do not exist: every CPU works half the time, every disk and card moves a fixed amount a
second, so that a test can tell what the rates must be."""

from collections.abc import Sequence

from gespann.host.fake.guest import FakeDomain
from gespann.seams.host_agent import CountersReply, DiskCounters, DomainCounters, InterfaceCounters, NicCounters

BUSY = 0.5
READ_BYTES, WRITTEN_BYTES, READS, WRITES = 1_048_576, 524_288, 100, 50  # a second, of each disk
READ_US, WRITE_US = 250, 800  # that a request takes
RECEIVED_BYTES, SENT_BYTES = 4096, 2048  # a second, of each card


def fake_counters(
    running_s: float, memory_bytes: int, free_bytes: int, machines: Sequence[FakeDomain]
) -> CountersReply:
    return CountersReply(
        taken_s=running_s,
        cpu_busy_seconds=[running_s * BUSY] * 8,
        load_average=1.0,
        memory_total_bytes=memory_bytes,
        memory_free_bytes=free_bytes,
        interfaces=[
            InterfaceCounters(
                device="eth0", received_bytes=int(running_s * RECEIVED_BYTES), sent_bytes=int(running_s * SENT_BYTES)
            )
        ],
        domains=[_of(running_s, machine) for machine in machines],
    )


def _of(running_s: float, machine: FakeDomain) -> DomainCounters:
    domain = machine.domain
    return DomainCounters(
        uuid=domain.uuid,
        start_id=domain.start_id,
        vcpu_seconds=[running_s * BUSY] * domain.vcpus,
        memory_bytes=domain.memory_bytes,
        memory_free_bytes=domain.memory_bytes // 2 if machine.agent_up else -1,
        disks=[
            DiskCounters(
                device=device,
                read_bytes=int(running_s * READ_BYTES),
                written_bytes=int(running_s * WRITTEN_BYTES),
                reads=int(running_s * READS),
                writes=int(running_s * WRITES),
                reads_us=int(running_s * READS * READ_US),
                writes_us=int(running_s * WRITES * WRITE_US),
            )
            for device in domain.disks
        ],
        nics=[
            NicCounters(
                device=device,
                received_bytes=int(running_s * RECEIVED_BYTES),
                sent_bytes=int(running_s * SENT_BYTES),
            )
            for device in domain.nics
        ],
    )
