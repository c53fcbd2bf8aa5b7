"""Gespann: hypervisor hosts and a storage array, harnessed as one team."""

__version__ = "0.1.0"
