"""Storage repository drivers: seam 2, one folder each, listed in ``registry``."""
