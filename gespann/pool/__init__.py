"""The coordinator of a pool: XenAPI in, steps on storage and hosts out."""
