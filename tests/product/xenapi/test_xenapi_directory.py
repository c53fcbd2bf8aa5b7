"""A user of this machine logs in by PAM. In a mount namespace of its own, with accounts made for the test: those of the
machine are neither read nor touched."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "a password of anna"
ACCOUNTS = "root:x:0:0::/root:/bin/sh\nanna:x:4001:4002:Anna:/:/bin/sh\n"
GROUPS = "root:x:0:\nanna:x:4002:\nstaff:x:4003:anna\n"
PROGRAM = """
import asyncio, sys, tempfile
from pathlib import Path
from gespann.pool.api.accounts import Accounts
from gespann.pool.api.api import Api
from gespann.pool.api.caller import Caller
from gespann.pool.model.database import Database
from gespann.pool.pool import Pool
from gespann.seams.xenapi.datamodel import role_ref
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.clock import SystemClock

async def main(base, password):
    accounts = Accounts(base)
    accounts.open("password of root")
    api = Api(Pool(Database(None), {}, {}, SystemClock()), accounts)
    with api.pool.db.transaction() as tx:
        host = tx.create("host", {})
        pool = tx.create("pool", {"master": host})
    root = api.local_session()
    await api.call("pool.enable_external_auth", root, pool, {}, "", "PAM")
    staff = await api.call("auth.get_subject_identifier", root, "staff")
    subject = await api.call("subject.create", root, {"subject_identifier": staff, "other_config": {}})
    await api.call("subject.add_to_roles", root, subject, role_ref("vm-operator"))
    async def login(word):
        try:
            _, ref = await api.invoke("session.login_with_password", ["anna", word], Caller("192.0.2.1"))
        except XenApiError as error:
            return error.code
        return (await api.call("session.get_auth_user_sid", ref, ref)) + " " + api.sessions.use(ref).role
    print(staff, "|", await login(password), "|", await login("wrong"), "|", await login(""))

asyncio.run(main(Path(sys.argv[1]), sys.stdin.read()))
"""


def test_user_of_the_machine_logs_in_by_a_group(tmp_path):
    crypt = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True)
    shadow = f"root:*:19000:0:99999:7:::\nanna:{crypt.stdout.strip()}:19000:0:99999:7:::\n"
    service = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"
    (tmp_path / "pam.d").mkdir()
    files = {"passwd": ACCOUNTS, "group": GROUPS, "shadow": shadow, "pam.d/gespann": service}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "shadow").chmod(0o640)
    binds = " && ".join(
        f"mount --bind {tmp_path / name} /etc/{name}" for name in ("passwd", "group", "shadow", "pam.d")
    )
    (tmp_path / "program.py").write_text(PROGRAM)
    line = f"{binds} && exec {sys.executable} {tmp_path}/program.py {tmp_path}"
    words = ["unshare", "--mount", "--", "sh", "-c", line]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(words, input=PASSWORD, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    answers = [answer.strip() for answer in done.stdout.split("|")]
    assert answers == ["g4003", "u4001 vm-operator", "SESSION_AUTHENTICATION_FAILED", "SESSION_AUTHENTICATION_FAILED"]
    assert PASSWORD not in (tmp_path / "audit.log").read_text() + done.stderr
