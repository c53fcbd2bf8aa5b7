"""Seam 1: the XenAPI as published, as data. ``classes/`` one file a class, ``facts/`` what they share."""
