"""The XenAPI's door: wire, sessions, tasks, events, roles, and every message that needs no work on storage or hosts."""
