"""Seam 5: what the coordinator asks of the agent on a host, and what the agent tells.

Transport: ``seams.json_lines`` over a Unix socket of mode 0600 (the coordinator's own host), or over mutual TLS (any
other: ``seams.host_membership``). Each request class is one ``op``; ``reply`` gives the fields of ``ok``; the ``Event``
classes are told to every connection without being asked.

Promises of the agent:
* It keeps nothing of its own: what runs is what libvirt says runs. After its restart all domains are still there.
* Every request may be repeated: creating a domain that runs, or destroying one that is gone, succeeds.
* A domain is named by its VM's uuid; ``start_id`` names the one start of it that is meant, and comes back in every
  state and event, so that news of an earlier start cannot be taken for news of this one.
* Secrets in disk sources never reach a command line, a log or a file that others can read.

Units: bytes, seconds.
"""

from typing import ClassVar, Literal

import msgspec

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_addresses import InterfaceAddresses
from gespann.seams.host_bonds import BondShape

PROTOCOL = "gespann-agent"
VERSION = 1

ERROR_CODES = frozenset(
    {
        "BAD_REQUEST",  # malformed or impossible: the caller's mistake
        "BAD_VERSION",
        "NOT_FOUND",  # no such domain, disk or interface
        "EXISTS",  # a domain of that uuid runs under another start_id
        "BAD_STATE",  # e.g. pausing what does not run
        "NO_MEMORY",
        "STORAGE",  # QEMU could not open a disk: message has its words
        "GUEST_AGENT",  # the guest's agent is absent, or did not answer in time
        "REFUSED",  # the guest did not do it (unplug, shutdown)
        "HYPERVISOR",  # anything else that libvirt or QEMU said
        "TIMEOUT",
    }
)


class HelloReply(msgspec.Struct, frozen=True, kw_only=True):
    protocol: str
    version: int
    agent_version: str
    hypervisor: str  # "libvirt" or "fake"


class Hello(Request, frozen=True):
    op: ClassVar[str] = "hello"
    reply: ClassVar[type] = HelloReply
    version: int


class HostInterface(msgspec.Struct, frozen=True, kw_only=True):
    device: str
    mac: str
    mtu: int
    carrier: bool
    addresses: list[str]  # "10.0.0.5/24"
    bridge: str = ""  # the bridge it is a port of
    configured: InterfaceAddresses | None = None  # what the pool has asked for; none: the host's own configuration
    gateway: str = ""  # of the default route by it, IPv4
    ipv6_gateway: str = ""
    bond: str = ""  # the bond that it is a member of; then it has neither addresses nor a bridge
    gro: bool | None = None  # see ``host_bonds.CardProperty``; none: not known


class FactsReply(msgspec.Struct, frozen=True, kw_only=True):
    hostname: str
    host_uuid: str
    cpu_count: int
    cpu_model: str
    cpu_vendor: str
    cpu_mhz: int
    cpu_flags: str
    memory_total_bytes: int
    memory_free_bytes: int
    accelerator: Literal["kvm", "tcg", "fake"]  # found by really starting a machine
    software_version: dict[str, str]  # qemu, libvirt, linux, ...
    interfaces: list[HostInterface]
    bridges: list[str]
    vlans: list[HostInterface] = []  # those that the agent made, with the addresses of their bridges
    bonds: list[BondShape] = []  # those that the agent made; each is among the interfaces too
    bios_strings: dict[str, str] = {}  # XenAPI's keys: "system-manufacturer", "bios-version", ...
    boot_id: str = ""  # another one whenever the machine has started anew
    managed_at: str = ""  # the address of the interface that the pool manages it by; "": as its processes were told


class Facts(Request, frozen=True):
    op: ClassVar[str] = "facts"
    reply: ClassVar[type] = FactsReply


class IscsiSource(msgspec.Struct, frozen=True, kw_only=True, tag="iscsi"):
    """A LUN, or a range of it, that QEMU itself opens, under a name and a secret made for this start."""

    host: str
    port: int
    target: str
    initiator: str
    chap_user: str
    chap_secret: str
    lun: int = 0
    offset_bytes: int = 0  # where the disk begins on the LUN
    size_bytes: int = 0  # 0: the LUN is the disk

    def __repr__(self) -> str:  # a secret must not reach a log through a repr
        return f"IscsiSource({self.host}:{self.port} {self.target} lun {self.lun} as {self.initiator})"


class FileSource(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A file of the host: install media."""

    path: str
    format: Literal["raw", "qcow2"] = "raw"


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """``device`` is the XenAPI userdevice, 0 to 255: the SCSI target number, the same for the life of the disk.
    ``source`` none: an empty CD drive."""

    device: int
    serial: str  # 20 bytes at most; the guest finds the disk by it
    source: IscsiSource | FileSource | None
    kind: Literal["disk", "cdrom"] = "disk"
    read_only: bool = False
    bootable: bool = False


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """``locked``: only frames of its own MAC address and of the addresses that are allowed pass, either way; DHCP, and
    what finds neighbours for these, passes too. ``locked`` to nothing, and ``disabled``: nothing passes."""

    device: int
    mac: str
    bridge: str
    mtu: int = 1500
    locking: Literal["unlocked", "locked", "disabled"] = "unlocked"
    ipv4_allowed: list[str] = []
    ipv6_allowed: list[str] = []


WEIGHT_DEFAULT, WEIGHT_MOST, CAP_MOST_PERCENT, CPUS_MOST = 256, 65_535, 6_553_600, 4096


class CpuTuning(msgspec.Struct, frozen=True, kw_only=True):
    """``weight``: its part of the processors when they are short, beside the others' (0: as one of 256).
    ``cap_percent``: the most it gets, in hundredths of one processor (0: no limit). ``cpus``: the host's processors
    that it runs on, in order (none: all)."""

    weight: int = 0
    cap_percent: int = 0
    cpus: list[int] = []


class DomainSpec(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    start_id: str
    name_label: str
    memory_bytes: int
    memory_target_bytes: int = 0  # what its balloon leaves to the guest; 0: all of it
    vcpus: int
    vcpus_max: int = 0  # as many can be plugged while it runs; 0: no more than it has
    disks: list[Disk]
    nics: list[Nic]
    boot_order: str = "cd"  # HVM_boot_params:order: c disk, d CD, n network
    bios_strings: dict[str, str] = {}  # by the keys of ``host.facts``: what the guest reads in its SMBIOS tables
    tuning: CpuTuning = CpuTuning()  # as far as the host can do it
    paused: bool = False


PowerState = Literal["running", "paused", "stopped"]


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    start_id: str
    state: PowerState
    reason: str = ""  # "ioerror", "crashed" (paused: the guest gave up; stopped: QEMU ended), "rebooted", ...
    domid: int = -1
    memory_bytes: int = 0  # that it has now: less than its start said when its balloon has taken some
    vcpus: int = 0
    disks: list[int] = []  # the devices plugged
    nics: list[int] = []
    serial_socket: str = ""  # Unix sockets on the host
    vnc_socket: str = ""


class DomainCreate(Request, frozen=True):
    """Starts a domain and answers when it runs (or is paused, as asked). On failure nothing of it is left."""

    op: ClassVar[str] = "domain.create"
    reply: ClassVar[type] = Domain
    spec: DomainSpec


class DomainShutdown(Request, frozen=True):
    """Asks the guest (its agent, else ACPI) to shut down or reboot, and answers when the domain has stopped, or for a
    reboot when the guest has taken the request. REFUSED if it still runs after ``timeout_s``."""

    op: ClassVar[str] = "domain.shutdown"
    reply: ClassVar[type] = Empty
    uuid: str
    reboot: bool = False
    timeout_s: float = 180.0


class DomainDestroy(Request, frozen=True):
    """Power off. Answers when QEMU is gone, and with it its iSCSI sessions. With ``start_id`` only that start."""

    op: ClassVar[str] = "domain.destroy"
    reply: ClassVar[type] = Empty
    uuid: str
    start_id: str | None = None


class DomainReset(Request, frozen=True):
    """The reset button."""

    op: ClassVar[str] = "domain.reset"
    reply: ClassVar[type] = Empty
    uuid: str


class DomainPause(Request, frozen=True):
    op: ClassVar[str] = "domain.pause"
    reply: ClassVar[type] = Empty
    uuid: str


class DomainUnpause(Request, frozen=True):
    op: ClassVar[str] = "domain.unpause"
    reply: ClassVar[type] = Empty
    uuid: str


class DomainVcpus(Request, frozen=True):
    """Plugs or unplugs vCPUs of a domain; it has that many when this answers. BAD_STATE: more than ``vcpus_max`` of its
    start; REFUSED: the guest does not let go of one."""

    op: ClassVar[str] = "domain.vcpus"
    reply: ClassVar[type] = Empty
    uuid: str
    vcpus: int


class MemorySave(Request, frozen=True):
    """Writes the memory and the devices' state of a paused domain into a volume that the agent opens for it, and closes
    again. Answers when all of it is durable; the domain stays paused. Repeated: it is written again, from the start.
    BAD_STATE if the domain is not paused; STORAGE if the volume cannot be written or is too small.

    ``image_id`` names the work for ``memory.stop``."""

    op: ClassVar[str] = "memory.save"
    reply: ClassVar[type] = Empty
    uuid: str
    start_id: str
    image_id: str
    target: IscsiSource | FileSource
    timeout_s: float = 3600.0


class MemoryProgressReply(msgspec.Struct, frozen=True, kw_only=True):
    fraction: float  # of the memory that has been looked at; 0.0 too for a save that is not under way


class MemoryProgress(Request, frozen=True):
    """How far ``memory.save`` is. Never waits for it."""

    op: ClassVar[str] = "memory.progress"
    reply: ClassVar[type] = MemoryProgressReply
    image_id: str


class MemoryStop(Request, frozen=True):
    """Ends a save or a restore that is under way, if it is; answers when the volume is closed. What was written is
    worth nothing then."""

    op: ClassVar[str] = "memory.stop"
    reply: ClassVar[type] = Empty
    image_id: str


class DomainRestore(Request, frozen=True):
    """A domain from what ``memory.save`` wrote, under a new start: answers when it is there, paused. Its devices must
    be those that it had (else BAD_STATE), and its disks keep their serials; where their other ends are, ``spec`` says.
    The image is only read. Repeated for a start that is there: succeeds. On failure nothing of it is left."""

    op: ClassVar[str] = "domain.restore"
    reply: ClassVar[type] = Domain
    spec: DomainSpec
    image_id: str
    memory: IscsiSource | FileSource
    timeout_s: float = 3600.0


class DomainListReply(msgspec.Struct, frozen=True, kw_only=True):
    domains: list[Domain]


class DomainList(Request, frozen=True):
    op: ClassVar[str] = "domain.list"
    reply: ClassVar[type] = DomainListReply


class DiskAttach(Request, frozen=True):
    """Plugs a disk or a drive. For a CD drive that is there already: changes its medium (``source`` none: ejects).
    BAD_STATE if the device is another disk."""

    op: ClassVar[str] = "disk.attach"
    reply: ClassVar[type] = Empty
    uuid: str
    disk: Disk


class DiskDetach(Request, frozen=True):
    """Answers when the guest has let go and QEMU's session is closed; REFUSED if the guest does not."""

    op: ClassVar[str] = "disk.detach"
    reply: ClassVar[type] = Empty
    uuid: str
    device: int
    timeout_s: float = 30.0


class DiskResize(Request, frozen=True):
    """Tells a running guest the new size; the array must report it already."""

    op: ClassVar[str] = "disk.resize"
    reply: ClassVar[type] = Empty
    uuid: str
    device: int
    size_bytes: int


class NicAttach(Request, frozen=True):
    """Plugs a NIC. One that is there already is moved to the bridge, and locked or unlocked. BAD_STATE if the
    device is another NIC."""

    op: ClassVar[str] = "nic.attach"
    reply: ClassVar[type] = Empty
    uuid: str
    nic: Nic


class NicDetach(Request, frozen=True):
    op: ClassVar[str] = "nic.detach"
    reply: ClassVar[type] = Empty
    uuid: str
    device: int
    timeout_s: float = 30.0


class GuestMetricsReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the guest's agent says. ``networks`` in XenAPI keys: "0/ip" -> "10.0.0.5", "0/ipv6/0" -> "fe80::1"."""

    live: bool  # an agent answers
    agent_version: str = ""
    os_version: dict[str, str] = {}  # name, distro, major, minor, uname
    networks: dict[str, str] = {}


class GuestMetrics(Request, frozen=True):
    """Never an error for a guest without agent: ``live`` is false then."""

    op: ClassVar[str] = "guest.metrics"
    reply: ClassVar[type] = GuestMetricsReply
    uuid: str


class GuestFreeze(Request, frozen=True):
    """Asks the guest's agent to write everything out and to hold the file systems still; answers when they are. After
    ``hold_s`` the agent of the host lets the guest go by itself, also if it was killed and started again meanwhile, and
    it does so after every failure: GUEST_AGENT none is there, TIMEOUT no answer, BAD_STATE it would not."""

    op: ClassVar[str] = "guest.freeze"
    reply: ClassVar[type] = Empty
    uuid: str
    hold_s: float = 10.0


class GuestThawReply(msgspec.Struct, frozen=True, kw_only=True):
    held: bool  # it held still from ``guest.freeze`` until now


class GuestThaw(Request, frozen=True):
    """Lets the guest go; answers when the guest itself says that it is thawed. TIMEOUT: it does not say so, and is
    asked further on."""

    op: ClassVar[str] = "guest.thaw"
    reply: ClassVar[type] = GuestThawReply
    uuid: str


class DiskCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Since the domain started. ``reads_us``, ``writes_us``: how long the requests took, all together."""

    device: int
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int
    reads_us: int = 0
    writes_us: int = 0


class NicCounters(msgspec.Struct, frozen=True, kw_only=True):
    """As the guest sees it: ``received`` is what came to it."""

    device: int
    received_bytes: int
    sent_bytes: int


class DomainCounters(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    start_id: str
    vcpu_seconds: list[float]  # of each, since the domain started
    memory_bytes: int  # that it has now
    memory_free_bytes: int = -1  # as its own kernel says; -1: it does not say
    disks: list[DiskCounters] = []
    nics: list[NicCounters] = []


class InterfaceCounters(msgspec.Struct, frozen=True, kw_only=True):
    device: str
    received_bytes: int
    sent_bytes: int


class CountersReply(msgspec.Struct, frozen=True, kw_only=True):
    """Counters only rise, until a host or a domain starts anew."""

    taken_s: float  # on the agent's own clock, which never goes back: rates are differences over this
    cpu_busy_seconds: list[float]  # of each CPU
    load_average: float  # of the last minute
    memory_total_bytes: int
    memory_free_bytes: int
    interfaces: list[InterfaceCounters]
    domains: list[DomainCounters]


class Counters(Request, frozen=True):
    """What host and domains have used. A domain that does not answer at once is left out, so that this never waits
    for one that hangs."""

    op: ClassVar[str] = "counters"
    reply: ClassVar[type] = CountersReply


class ImageExportSocketReply(msgspec.Struct, frozen=True, kw_only=True):
    socket: str


class ImageOpen(Request, frozen=True):
    """Opens a disk on the host itself, outside any domain, and serves it as NBD on a Unix socket until ``image.close``:
    the way a disk image is streamed into or out of a volume."""

    op: ClassVar[str] = "image.open"
    reply: ClassVar[type] = ImageExportSocketReply
    image_id: str
    source: IscsiSource | FileSource
    read_only: bool = False


class ImageClose(Request, frozen=True):
    """Flushes and closes; answers when the session is gone."""

    op: ClassVar[str] = "image.close"
    reply: ClassVar[type] = Empty
    image_id: str


class BridgeEnsure(Request, frozen=True):
    """Makes a Linux bridge if it is not there, and gives it the MTU."""

    op: ClassVar[str] = "bridge.ensure"
    reply: ClassVar[type] = Empty
    bridge: str
    mtu: int = 1500


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the agent tells by itself."""

    event: ClassVar[str]


class DomainChanged(Event, frozen=True):
    """A domain changed its state (started, paused, unpaused, stopped, crashed, rebooted, I/O error)."""

    event: ClassVar[str] = "domain.changed"
    domain: Domain


class GuestChanged(Event, frozen=True):
    """The guest's agent came or went, or what it says may have changed: ask ``guest.metrics``."""

    event: ClassVar[str] = "guest.changed"
    uuid: str


REQUESTS: tuple[type[Request], ...] = (
    Hello,
    Facts,
    DomainCreate,
    DomainShutdown,
    DomainDestroy,
    DomainReset,
    DomainPause,
    DomainUnpause,
    DomainVcpus,
    MemorySave,
    MemoryProgress,
    MemoryStop,
    DomainRestore,
    DomainList,
    DiskAttach,
    DiskDetach,
    DiskResize,
    NicAttach,
    NicDetach,
    GuestMetrics,
    GuestFreeze,
    GuestThaw,
    Counters,
    ImageOpen,
    ImageClose,
    BridgeEnsure,
)
EVENTS: tuple[type[Event], ...] = (DomainChanged, GuestChanged)
