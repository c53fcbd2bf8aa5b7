"""What a user types: `xe` commands, and the array's CLI by `ssh`. Each is shown, run for real, and its answer shown."""

import os
import re
import shlex
import time
from collections.abc import Callable

from gespann.demo.doors import SSH_OPTIONS, shown
from gespann.demo.show import Show
from gespann.demo.site import ISCSI_PORT, PROJECT, XE, Access
from gespann.system import processes

COMMAND_TIMEOUT_S = 300.0
GROUP_ACCOUNT = "grpadmin"
POLL_S = 0.2


class CheckFailed(Exception):
    """The product did not do what the demo says it does."""


def check(true: bool, what: str) -> None:
    if not true:
        raise CheckFailed(what)


class User:
    def __init__(self, show: Show, access: Access) -> None:
        self.show = show
        self.access = access

    # --- xe

    def xe(self, command: str, *, quiet: bool = False) -> str:
        """``command`` as typed after `xe`, words quoted as in a shell; its answer."""
        done = self._xe(command, quiet)
        if done.exit_code:
            raise CheckFailed(f"xe {command}\n{done.stderr.strip() or done.stdout.strip()}")
        if not quiet:
            self.show.output(done.stdout)
        return done.stdout.strip()

    def xe_refused(self, command: str) -> str:
        """A command that must fail; what it says on stderr."""
        done = self._xe(command, quiet=False)
        check(done.exit_code != 0, f"xe {command}: did not fail")
        return done.stderr

    def _xe(self, command: str, quiet: bool) -> processes.Result:
        if not quiet:
            self.show.command(f"xe {command}")
        env = {**os.environ, "GESPANN_XAPI_SOCKET": str(self.access.xe_socket)}
        with self.show.life.waiting(f"xe {command.split()[0]}"):
            return processes.run(
                [XE, *shlex.split(command)], env=env, cwd=PROJECT, timeout_s=COMMAND_TIMEOUT_S, check=False
            )

    def get(self, kind: str, uuid: str, field: str, key: str = "") -> str:
        """One field of one object, not shown."""
        wanted = f" param-key={key}" if key else ""
        return self.xe(f"{kind}-param-get uuid={uuid} param-name={field}{wanted}", quiet=True)

    # --- the array's CLI

    def group(self, command: str, *, quiet: bool = False) -> str:
        """One command of the group CLI, by the openssh client with grpadmin's password."""
        destination = f"{GROUP_ACCOUNT}@{self.access.group_address}"
        if not quiet:
            self.show.command(f"ssh {destination} {shlex.quote(command)}")
        password_file = self.access.group_password_file
        words: list[processes.Word] = ["sshpass", "-f", password_file, "ssh", *SSH_OPTIONS, destination, command]
        with self.show.life.waiting("ssh"):
            done = processes.run(words, timeout_s=180, check=False)
        text = done.stdout.replace("\r\n", "\n")
        if done.exit_code or "% Error" in text:
            raise CheckFailed(f"ssh {destination} {command}\n{done.stderr}{text}")
        if not quiet:
            self.show.output(text)
        return text

    def group_value(self, command: str, key: str) -> str:
        """``Key: value`` out of a detail view, one or two of them a line; not shown."""
        text = self.group(command, quiet=True)
        found = re.search(rf"(?:^|  ){re.escape(key)}:[ ]*(.*?)(?:  .*)?$", text, re.MULTILINE)
        if not found:
            raise CheckFailed(f"{command}: no {key} in\n{text}")
        return found[1].strip()

    # --- iSCSI

    def iscsi_inquiry(self, target: str, initiator: str, chap_user: str, secret: str) -> processes.Result:
        """libiscsi's `iscsi-inq` under somebody's credentials; the secret goes in by its environment."""
        url = f"iscsi://{self.access.group_address}:{ISCSI_PORT}/{target}/0"
        self.show.command(
            f"LIBISCSI_CHAP_USERNAME={chap_user} LIBISCSI_CHAP_PASSWORD=... iscsi-inq -i {initiator} {url}"
        )
        env = {**os.environ, "LIBISCSI_CHAP_USERNAME": chap_user, "LIBISCSI_CHAP_PASSWORD": secret}
        return processes.run(["iscsi-inq", "-i", initiator, url], env=env, timeout_s=120, check=False)

    def explain_login(self) -> None:
        self.show.say(f"(the password of {GROUP_ACCOUNT} is in {shown(self.access.group_password_file)})")

    # --- waiting

    def wait_for(self, what: str, ask: Callable[[], str], timeout_s: float) -> tuple[str, float]:
        """Asks again until the answer is not empty: that answer, and how long it took. CheckFailed when it is late."""
        began = time.monotonic()
        with self.show.life.waiting(what):
            while not (answer := ask()):
                if time.monotonic() - began > timeout_s:
                    raise CheckFailed(f"{what}: not within {timeout_s:g} s")
                time.sleep(POLL_S)
        return answer, time.monotonic() - began
