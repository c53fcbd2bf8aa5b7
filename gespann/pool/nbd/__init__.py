"""Disks read over NBD by programs elsewhere: who may, and the way to the host that has the disk open."""
