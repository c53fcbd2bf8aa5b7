"""The agent of a host: drives libvirt (or a fake of it) for the coordinator. Seam 5 says what it promises."""
