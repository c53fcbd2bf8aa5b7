"""How uuids are spelled between all parts: lower case, with dashes (RFC 4122, 3)."""

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
