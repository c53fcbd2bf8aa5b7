"""Classes that are about the API itself: session, task, event, message, role, secret. Machines, disks and networks are
in ``gespann.pool.classes``."""
