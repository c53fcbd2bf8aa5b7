"""The main job, as a user does it: eight steps, each with what it shows and what is checked."""

import re
import time
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from defusedxml import ElementTree

from gespann.demo.doors import shown
from gespann.demo.guest import GuestConsole
from gespann.demo.show import Show
from gespann.demo.site import GUEST_IMAGE, XE, Site
from gespann.demo.user import CheckFailed, User, check

MIB = 1 << 20
VM, TEMPLATE = "web1", "tiny"
BOOT_TIMEOUT_S = 240.0
SETTLE_TIMEOUT_S = 180.0
WRITTEN_MIB = 100
LOGIN_REFUSED = r"\((513|514)\)"  # status classes 0x0201 and 0x0202, as libiscsi shows them
UNITS = {"MB": 1, "GB": 1024, "TB": 1024 * 1024}


@dataclass(frozen=True)
class Opening:
    """How a volume was opened to one start of a VM: what the array's access record says."""

    initiator: str
    chap_user: str
    chap_secret: str


def size_mib(text: str) -> float:
    """``1.01GB`` -> 1034.24; a value in parentheses behind it is left out."""
    found = re.match(r"([\d.]+)(MB|GB|TB)", text)
    if not found:
        raise CheckFailed(f"not a size: {text!r}")
    return float(found[1]) * UNITS[found[2]]


def field(element: Element, name: str) -> str:
    """The text of a child, its name in whatever case."""
    return next(((child.text or "").strip() for child in element if child.tag.lower() == name), "")


class Job:
    def __init__(self, site: Site, show: Show) -> None:
        self.site = site
        self.show = show

    def run(self) -> None:
        steps = (
            ("an array group, and a pool with one host", self.start),
            ("a storage repository on the array", self.create_repository),
            ("a guest template", self.import_template),
            (f"a new VM, {VM}: the array makes its disk", self.install),
            (f"{VM} starts: the array opens the disk to it alone", self.start_vm),
            ("the same, seen from the array", self.look_from_array),
            ("a second disk while it runs, thick this time", self.add_disk),
            ("shut down, start again, uninstall", self.end_and_again),
        )
        for title, act in steps:
            with self.show.step(title):
                act()

    # --- 1

    def start(self) -> None:
        with self.show.life.waiting("the machines of the lab start"):
            self.site.up_nodes(hosts=1)
        began = time.monotonic()
        with self.show.life.waiting("group control and the engine start"):
            self.site.start_group()
        self.show.fact("the array group answers: group control and its engine", time.monotonic() - began)
        began = time.monotonic()
        with self.show.life.waiting("agent and coordinator start"):
            self.site.start_pool()
        self.show.fact("the pool answers: a coordinator and a host agent", time.monotonic() - began)
        self.user = User(self.show, self.site.access)
        self.show.command(
            f"export GESPANN_XAPI_SOCKET={shown(self.site.access.xe_socket)}; PATH=$PATH:{shown(XE.parent)}"
        )
        self.user.xe("host-list params=name-label,enabled,address")
        self.user.explain_login()
        self.user.group("show pool")

    # --- 2

    def create_repository(self) -> None:
        access = self.site.access
        config = f"device-config:target={access.storage_address} device-config:username=grpadmin "
        config += f"device-config-filename:password={shown(access.group_password_file)}"
        self.show.say("The SR is asked for without a storage pool: its refusal lists them, as XML.")
        refusal = self.user.xe_refused(f"sr-create name-label=array type=equal shared=true {config}")
        pools = self._storage_pools(refusal)
        chosen, free_bytes = max(pools, key=lambda pool: pool[1])
        self.show.fact(f"{len(pools)} storage pool(s) offered; chosen: {chosen}, {free_bytes / 2**30:.1f} GiB free")
        self.sr = self.user.xe(
            f"sr-create name-label=array type=equal shared=true content-type=user {config}"
            f" device-config:storagepool={chosen} sm-config:allocation=thin"
        )
        self.user.xe(f"sr-list uuid={self.sr} params=name-label,type,physical-size")
        attached = self.user.xe(f"pbd-list sr-uuid={self.sr} params=currently-attached --minimal", quiet=True)
        check(attached == "true", f"the SR is not attached to the host: {attached!r}")
        self.show.fact("the SR is attached to the host")

    def _storage_pools(self, refusal: str) -> list[tuple[str, int]]:
        check("SR_BACKEND_FAILURE_163" in refusal, f"not the refusal of an SR without storage pool:\n{refusal}")
        tree = ElementTree.fromstring(refusal[refusal.index("<?xml") : refusal.rindex(">") + 1])
        self.show.output(re.sub(r">\s+<", "><", refusal).strip())
        found = [(field(item, "name"), int(field(item, "freespace"))) for item in tree.iter("StoragePool")]
        check(bool(found), f"no StoragePool in\n{refusal}")
        return found

    # --- 3

    def import_template(self) -> None:
        xe = self.user.xe
        size_bytes = GUEST_IMAGE.stat().st_size
        self.template = xe(f"vm-create name-label={TEMPLATE}")
        xe(f"vm-param-set uuid={self.template} HVM-boot-policy='BIOS order' HVM-boot-params:order=c")
        limits = "static-min=64MiB dynamic-min=192MiB dynamic-max=192MiB static-max=192MiB"
        xe(f"vm-memory-limits-set uuid={self.template} {limits}")
        vdi = xe(
            f"vdi-create sr-uuid={self.sr} name-label={TEMPLATE}-root type=user virtual-size={size_bytes}"
            " sm-config:allocation=thin"
        )
        xe(f"vdi-import uuid={vdi} filename={shown(GUEST_IMAGE)} format=raw")
        vbd = xe(f"vbd-create vm-uuid={self.template} vdi-uuid={vdi} device=0 bootable=true type=Disk mode=RW")
        xe(f"vbd-param-set uuid={vbd} other-config:owner=true")
        network = xe("network-list bridge=xenbr2 --minimal")
        check(bool(network), "the pool has no network on xenbr2, the bridge of the guests")
        xe(f"vif-create vm-uuid={self.template} network-uuid={network} device=0 mac=random")
        xe(f"vm-param-set uuid={self.template} is-a-template=true")
        check(xe(f"template-list uuid={self.template} --minimal", quiet=True) == self.template, "no such template")
        imported = int(self.user.get("vdi", vdi, "physical-utilisation"))
        self.show.fact(f"{size_bytes // MIB} MiB image imported; the array holds {imported / MIB:.0f} MiB for it")

    # --- 4

    def install(self) -> None:
        began = time.monotonic()
        self.vm = self.user.xe(
            f"vm-install template={TEMPLATE} new-name-label={VM} sr-uuid={self.sr} sm-config:allocation=thin"
        )
        took_s = time.monotonic() - began
        vbd = self.user.xe(f"vbd-list vm-uuid={self.vm} type=Disk --minimal", quiet=True)
        self.vdi = self.user.get("vbd", vbd, "vdi-uuid")
        self.user.xe(
            f"vm-disk-list uuid={self.vm} vdi-params=uuid,name-label,virtual-size,sr-name-label vbd-params=device"
        )
        self.volume = self._volume_of(self.vdi)
        self.show.fact(f"{VM} has its own volume on the array: {self.volume}", took_s)
        self.user.group("volume show")
        thin = self.user.group_value(f"volume select {self.volume} show", "Thin-Provision")
        check(thin.startswith("enabled"), f"the volume is not thin: {thin}")
        self.show.fact("it is thin, and nobody may open it: no access record")
        check(not self._records(), "an access record before any start")

    def _volume_of(self, vdi: str) -> str:
        """The name that the driver gave the VDI's volume: it ends with the first 20 hex digits of the VDI's uuid."""
        mark = vdi.replace("-", "")[:20]
        found = [name for name in self._volumes() if name.endswith(mark)]
        check(len(found) == 1, f"{len(found)} volumes for VDI {vdi}")
        return found[0]

    def _volumes(self) -> list[str]:
        """The first column of `volume show`, names that were wrapped put together."""
        names: list[str] = []
        lines = self.user.group("volume show", quiet=True).splitlines()
        start = next((number for number, line in enumerate(lines) if line.startswith("-----")), len(lines))
        for line in lines[start + 1 :]:
            if re.match(r"  \S", line) and names:
                names[-1] += line[2:].split(" ")[0]
            elif re.match(r"\S+ ", line):
                names.append(line.split(" ")[0])
        return names

    def _records(self) -> list[str]:
        """Ids of the volume's access records."""
        text = self.user.group(f"volume select {self.volume} access show", quiet=True)
        return re.findall(r"^(\d+) ", text, re.MULTILINE)

    # --- 5

    def start_vm(self) -> None:
        self.first = self._start_and_wait()
        self.user.xe(f"vm-list uuid={self.vm} params=name-label,power-state,networks")

    def _start_and_wait(self) -> Opening:
        began = time.monotonic()
        self.user.xe(f"vm-start vm={VM}")
        self.show.fact("the record is set, QEMU has opened the LUN, the machine runs", time.monotonic() - began)
        address, _ = self.user.wait_for(f"{VM} boots", self.guest_address, BOOT_TIMEOUT_S)
        self.show.fact(f"the guest has booted and its agent says: {address}", time.monotonic() - began)
        check(self.user.get("vm", self.vm, "power-state") == "running", "the VM does not run")
        return self._opening()

    def guest_address(self) -> str:
        networks = self.user.get("vm", self.vm, "networks")
        found = re.search(r"0/ip: ([\d.]+)", networks)
        return found[1] if found else ""

    def _opening(self) -> Opening:
        records = self._records()
        check(len(records) == 1, f"{len(records)} access records instead of one")
        select = f"volume select {self.volume} access select {records[0]} show"
        initiator = self.user.group_value(select, "Initiator")
        chap_user = self.user.group_value(select, "UserName")
        check(bool(initiator and chap_user), "the record names no initiator or no CHAP user")
        return Opening(initiator, chap_user, self.user.group_value(f"chapuser show {chap_user}", "Password"))

    # --- 6

    def look_from_array(self) -> None:
        select = f"volume select {self.volume}"
        self.user.group(f"{select} show")
        self.user.group(f"{select} access show")
        self.show.fact(f"one record: {self.first.initiator}, CHAP user {self.first.chap_user}")
        self.user.group(f"{select} show connections")
        connections = self.user.group_value(f"{select} show", "Connections")
        check(connections == "1", f"{connections} connections instead of one")
        self.show.fact("one connection: that of this machine's QEMU")
        self._usage_grows_and_shrinks()

    def _used_mib(self) -> float:
        return size_mib(self.user.group_value(f"volume select {self.volume} show", "VolReserveInUse"))

    def _usage_grows_and_shrinks(self) -> None:
        before = self._used_mib()
        with GuestConsole(self.show, self.site.access, VM) as guest:
            guest.run(f"dd if=/dev/urandom of=/root/data bs=1M count={WRITTEN_MIB} && sync")
            grown, _ = self.user.wait_for("usage grows", lambda: self._at_least(before + 0.9 * WRITTEN_MIB), 30)
            self.show.fact(f"in use on the array: {before:.0f} MB before, {grown} MB with {WRITTEN_MIB} MB written")
            guest.run("rm /root/data && sync && fstrim /")
            shrunk, _ = self.user.wait_for("usage shrinks", lambda: self._at_most(before + 0.2 * WRITTEN_MIB), 30)
            self.show.fact(f"deleted and trimmed: {shrunk} MB")

    def _at_least(self, mib: float) -> str:
        used = self._used_mib()
        return f"{used:.0f}" if used >= mib else ""

    def _at_most(self, mib: float) -> str:
        used = self._used_mib()
        return f"{used:.0f}" if used <= mib else ""

    # --- 7

    def add_disk(self) -> None:
        xe = self.user.xe
        vdi = xe(
            f"vdi-create sr-uuid={self.sr} name-label=data virtual-size=150MiB type=user sm-config:allocation=thick"
        )
        vbd = xe(f"vbd-create vm-uuid={self.vm} vdi-uuid={vdi} device=1 mode=RW type=Disk")
        xe(f"vbd-param-set uuid={vbd} other-config:owner=true")
        began = time.monotonic()
        xe(f"vbd-plug uuid={vbd}")
        self.show.fact("plugged while the VM runs", time.monotonic() - began)
        name = self._volume_of(vdi)
        thin = self.user.group_value(f"volume select {name} show", "Thin-Provision")
        check(not thin.startswith("enabled"), f"the second volume is thin: {thin}")
        with GuestConsole(self.show, self.site.access, VM) as guest:
            disks = guest.run("grep . /sys/block/sd*/size")
            found = re.search(rf"^/sys/block/(sd[a-z])/size:{150 * MIB // 512}$", disks, re.MULTILINE)
            if not found:
                raise CheckFailed(f"no disk of 150 MiB among\n{disks}")
            guest.run(f"mke2fs -q /dev/{found[1]} >/dev/null && mount /dev/{found[1]} /mnt")
            guest.run("echo kept >/mnt/note && cat /mnt/note")
            guest.run("umount /mnt")
        self.show.fact("the guest sees it, and keeps a file on it")

    # --- 8

    def end_and_again(self) -> None:
        self._shut_down()
        second = self._start_and_wait()
        check(second.initiator != self.first.initiator, "the second start has the initiator name of the first")
        check(second.chap_secret != self.first.chap_secret, "the second start has the secret of the first")
        self.show.fact(f"another name and another secret: {second.initiator}")
        self._refuses(self.first)
        self._uninstall()

    def _shut_down(self) -> None:
        self.user.xe(f"vm-shutdown vm={VM}")
        check(self.user.get("vm", self.vm, "power-state") == "halted", "the VM is not halted")
        connections = self.user.group_value(f"volume select {self.volume} show", "Connections")
        check(connections == "0" and not self._records(), f"{connections} connections, records {self._records()}")
        self.show.fact("halted: the access record is gone, and there is no connection")

    def _refuses(self, old: Opening) -> None:
        """Somebody who kept the credentials of the first start tries them at the array's door."""
        target = self.user.group_value(f"volume select {self.volume} show", "iSCSI Name")
        self.show.say("Somebody kept the credentials of the first start, and tries them now:")
        answer = self.user.iscsi_inquiry(target, old.initiator, old.chap_user, old.chap_secret)
        check(answer.exit_code != 0, "the array let the credentials of an earlier start in")
        said = answer.stderr.strip() or answer.stdout.strip()
        self.show.output(said)
        check(bool(re.search(LOGIN_REFUSED, said)), "it failed, but not because the array refused the login")
        self.show.fact("refused")

    def _uninstall(self) -> None:
        before = len(self._volumes())
        self.user.xe(f"vm-uninstall vm={VM} force=true")
        check(not self.user.xe(f"vm-list uuid={self.vm} --minimal", quiet=True), "the VM is still there")
        left = self._volumes()
        check(self.volume not in left, "the volume is still there")
        check(len(left) == before - 2, f"{before - len(left)} volumes went instead of two")
        self.user.group("volume show")
        self.show.fact("the VM is gone, and its volumes with it")
