"""Decides, and does nothing: records and a request in; a ``Plan`` of steps, or a refusal (XenApiError), out."""
