"""The one exception that the XenAPI knows: a code and its parameters, all strings."""

from collections.abc import Sequence


class XenApiError(Exception):
    """What goes over the wire as ``ErrorDescription = [code, *params]``."""

    def __init__(self, code: str, params: Sequence[str] = ()) -> None:
        super().__init__(code, *params)
        self.code = code
        self.params = list(params)
