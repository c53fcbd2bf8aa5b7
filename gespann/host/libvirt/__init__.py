"""The hypervisor as libvirt drives it: one monolithic libvirtd on the same host, QEMU under it."""

from gespann.host.libvirt.hypervisor import LibvirtHypervisor

__all__ = ["LibvirtHypervisor"]
