"""What is in volumes, block by block: NBD, archives of VMs, image formats."""
