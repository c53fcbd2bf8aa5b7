"""Pools to run commands against. Uuids count up in the order in which things are made here: see the golden scripts."""

from tests.unit.xe.fake_xenapi import NOW, FakeXenApi

GIB = 1024**3


def small_pool() -> FakeXenApi:
    """One host, an array SR (the default) and an ISO SR, a template, a halted and a running VM, a network."""
    api = FakeXenApi()
    host_metrics = api.add("host_metrics", memory_total=8 * GIB, memory_free=6 * GIB, live=True)
    host = api.add(
        "host",
        name_label="host1",
        hostname="host1",
        address="192.0.2.1",
        enabled=True,
        metrics=host_metrics,
        cpu_info={"cpu_count": "4", "vendor": "GenuineIntel"},
    )
    array = api.add("SR", name_label="array1", type="equal", shared=True, content_type="user")
    iso = api.add("SR", name_label="images", type="iso", shared=True, content_type="iso")
    for sr, config in ((array, {"target": "192.0.2.9", "storagepool": "default"}), (iso, {"location": "/iso"})):
        api.add("PBD", host=host, SR=sr, device_config=config, currently_attached=True)
    api.add("pool", name_label="pool1", master=host, default_SR=array)
    network = api.add("network", name_label="net0", bridge="br0", MTU=1500, managed=True)
    template = _vm(api, "debian", is_a_template=True, other_config={"install-methods": "none"})
    _disk(api, template, array, "system")
    web1 = _vm(api, "web1", name_description="the shop", tags=["prod", "web"])
    _disk(api, web1, array, "web1 disk")
    guest = api.add(
        "VM_guest_metrics", networks={"0/ip": "192.0.2.51"}, os_version={"name": "Debian"}, live=True, last_updated=NOW
    )
    db1 = _vm(api, "db1", power_state="Running", resident_on=host, guest_metrics=guest)
    _disk(api, db1, array, "db1 disk")
    api.add("VIF", VM=db1, network=network, device="0", MAC="02:00:00:00:00:01", MTU=1500, currently_attached=True)
    api.add("console", VM=db1, protocol="vt100", location="https://192.0.2.1/console?uuid=1")
    api.add("VDI", name_label="debian.iso", SR=iso, virtual_size=GIB, type="user", read_only=True)
    return api


def _vm(api: FakeXenApi, name: str, **values: object) -> str:
    metrics = api.add("VM_metrics", memory_actual=GIB, VCPUs_number=1, start_time=NOW)
    memory = {f"memory_{kind}": GIB for kind in ("static_max", "dynamic_max", "dynamic_min", "static_min")}
    defaults = {"name_label": name, "power_state": "Halted", "metrics": metrics, "VCPUs_max": 1, **memory}
    return api.add("VM", **{**defaults, **values})


def _disk(api: FakeXenApi, vm: str, sr: str, name: str) -> None:
    vdi = api.add("VDI", name_label=name, SR=sr, virtual_size=8 * GIB, type="user")
    api.add("VBD", VM=vm, VDI=vdi, userdevice="0", device="xvda", type="Disk", mode="RW", other_config={"owner": ""})
