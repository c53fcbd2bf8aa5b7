"""Another pool, as a client of its XenAPI sees it: used once, by a host that joins it.

Nobody can know the other pool's certificate before: the administrator vouches for the address, as at the first log-in
of any client. What is learnt on that connection, the certificate of the other coordinator towards agents, is pinned
from then on.
"""

import asyncio
import base64
import hashlib
import http.client
import json
import logging
import ssl
from dataclasses import dataclass, field
from typing import Any

from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

TLS_PORT = 443
TIMEOUT_S = 20.0
JOIN_TIMEOUT_S = 180.0  # the other side attaches its storage to the newcomer
ANSWER_LIMIT_BYTES = 16 * 1024 * 1024


def split_address(text: str) -> tuple[str, int]:
    """``host``, ``host:port``, ``[v6]``, ``[v6]:port``, or an IPv6 address as it is."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not host or (port and not (port.isdigit() and 0 < int(port) < 65536)):
        raise XenApiError("INVALID_VALUE", ["master_address", text])
    return host, int(port or TLS_PORT)


@dataclass
class RemotePool:
    """``async with RemotePool.log_in(...)``: logs out at the end. JOINING_HOST_CONNECTION_FAILED if nobody answers."""

    address: str
    user: str
    password: str = field(repr=False)
    session: str = ""
    fingerprint: str = ""

    async def __aenter__(self) -> "RemotePool":
        self.session = await self._call("session.login_with_password", self.user, self.password, "2.0", "pool.join")
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.call("session.logout")
        except XenApiError as error:
            log.debug("the session at the other pool was over already: %s", error.code)

    async def call(self, method: str, *params: Any) -> Any:
        return await self._call(method, self.session, *params)

    async def member_door(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """GET or PUT ``/pool_member``: see ``classes.pool_members``. XenApiError as the other pool says."""
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        data = json.dumps(body or {}).encode()
        status, answer = await asyncio.to_thread(self._send, method, "/pool_member", data, headers, JOIN_TIMEOUT_S)
        if status != 200:
            code, *params = answer.decode(errors="replace").strip().split(" ") or ["INTERNAL_ERROR"]
            raise XenApiError(code if code.isupper() else "INTERNAL_ERROR", params)
        return _object(answer)

    async def _call(self, method: str, *params: Any) -> Any:
        request = {"jsonrpc": "2.0", "method": method, "params": list(params), "id": 1}
        data = json.dumps(request).encode()
        _, body = await asyncio.to_thread(self._send, "POST", "/jsonrpc", data, {}, TIMEOUT_S)
        answer = _object(body)
        error = answer.get("error")
        if error:
            raise XenApiError(str(error["message"]), [str(item) for item in error.get("data") or []])
        return answer.get("result")

    def _send(
        self, method: str, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        """In a thread. All requests insist on the certificate that the first one met."""
        host, port = split_address(self.address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        try:
            connection.connect()
            shown = hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest()
            if self.fingerprint not in ("", shown):
                raise ssl.SSLError("another certificate than a moment ago")
            self.fingerprint = shown
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.read(ANSWER_LIMIT_BYTES)
        except (OSError, http.client.HTTPException) as error:
            log.warning("pool at %s: %s", self.address, error)
            raise XenApiError("JOINING_HOST_CONNECTION_FAILED", []) from error
        finally:
            connection.close()


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise XenApiError("JOINING_HOST_CONNECTION_FAILED", [])
    return answer
