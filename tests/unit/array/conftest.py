from tests.array_group import group_of_a_test as group
from tests.array_group import ssh_host_keys

__all__ = ["group", "ssh_host_keys"]
