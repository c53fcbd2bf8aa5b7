"""What a node finds in its /etc, /var and /run."""

import shutil
import uuid
from pathlib import Path

from gespann.lab.node_init import Service

_HOSTS = uuid.UUID("2f0f4c52-4f5e-4f7c-9b0c-7d2d7b8f1c66")

LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
max_clients = 200
min_workers = 3
max_workers = 20
prio_workers = 3
keepalive_interval = 2
keepalive_count = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

# cgroup_controllers: /sys/fs/cgroup is not visible under a fresh /sys, and paths of several hosts would collide.
# stdio_handler: no virtlogd here. namespaces, security_driver: the nodes share one /dev and one user table.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
security_default_confined = 0
cgroup_controllers = [ ]
namespaces = [ ]
seccomp_sandbox = 0
clear_emulator_capabilities = 0
set_process_name = 0
max_core = 0
stdio_handler = "file"
relaxed_acs_check = 1
keepalive_interval = 2
keepalive_count = 3
migration_host = "{migration_address}"
lock_manager = "nop"
"""

LIBVIRTD = Service(words=["/usr/sbin/libvirtd"])


def host_uuid(lab: str, node: str) -> str:
    """One per host: all of them would have this machine's, and libvirt refuses to migrate to "the same host"."""
    return str(uuid.uuid5(_HOSTS, f"{lab}/{node}"))


def write_disk(directory: Path, hosts_file: str, lab: str, node: str, migration_address: str) -> None:
    """What outlives a boot; what is there stays."""
    for name in ("var/lib", "var/log/libvirt/qemu", "var/cache/libvirt", "var/tmp", "services", "log"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    if not (directory / "var/run").is_symlink():
        (directory / "var/run").symlink_to("/run")
    etc = directory / "etc"
    if not etc.exists():
        beside = directory / "etc.new"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree("/etc", beside, symlinks=True, ignore_dangling_symlinks=True)
        beside.rename(etc)
    (etc / "hosts").write_text(hosts_file)
    (etc / "hostname").write_text(f"{node}\n")
    if node != "array":
        _add_qemu_user(etc)
        (etc / "libvirt").mkdir(exist_ok=True)
        (etc / "libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF.format(uuid=host_uuid(lab, node)))
        (etc / "libvirt/qemu.conf").write_text(QEMU_CONF.format(migration_address=migration_address))


def _add_qemu_user(etc: Path) -> None:
    """libvirtd does not start without the user that Debian's libvirt-daemon-system would make, used or not."""
    for name, line in (("passwd", "64055:64055:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin"), ("group", "64055:")):
        path = etc / name
        if "libvirt-qemu:" not in path.read_text():
            with path.open("a") as file:
                file.write(f"libvirt-qemu:x:{line}\n")
    if "kvm:" not in (etc / "group").read_text():
        with (etc / "group").open("a") as file:
            file.write("kvm:x:64056:\n")


def empty_run(directory: Path) -> None:
    """/run as a boot finds it."""
    shutil.rmtree(directory / "run", ignore_errors=True)
    for name in ("lock", "netns", "libvirt"):
        (directory / "run" / name).mkdir(parents=True)
    for path in (directory / "services").glob("*.pid"):
        path.unlink()
