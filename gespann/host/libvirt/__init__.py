"""The hypervisor as libvirt drives it: one monolithic libvirtd on the same host, QEMU under it."""
