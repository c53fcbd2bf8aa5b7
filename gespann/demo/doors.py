"""What a person must know to use a site: how to call `xe`, where the XenAPI and the group CLI are, the credentials."""

import os
from pathlib import Path

from gespann.demo.site import PROJECT, XE, Access

SSH_OPTIONS = (
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "LogLevel=ERROR",
    "-o",
    "ConnectTimeout=10",
)


def shown(path: Path) -> str:
    """As a user in the project's folder would type it."""
    return os.path.relpath(path, PROJECT) if path.is_relative_to(PROJECT) else str(path)


def describe(access: Access) -> str:
    password = f'"$(cat {shown(access.root_password_file)})"'
    return f"""\
xe            export GESPANN_XAPI_SOCKET={access.xe_socket}
              {shown(XE)} vm-list
              by network, with TLS: export GESPANN_CA={shown(access.certificate_file)}
              {shown(XE)} -s {access.pool_address} -u root -pw {password} vm-list
XenAPI        https://{access.pool_address}/   (TLS only; its certificate is the file above)
              user root, password in {shown(access.root_password_file)}
group CLI     ssh grpadmin@{access.group_address}   (the host key is a new one for each lab)
              password in {shown(access.group_password_file)}
iSCSI         {access.group_address}:3260; between hosts and array {access.storage_address}:3260
stop it       make down (its data is deleted with it)
"""
