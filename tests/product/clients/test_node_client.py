"""The Node client (npm ``xen-api``), unmodified, by both of its transports. Scripts in ``node/`` do what programs do
with it, and assert there."""

import subprocess
import time
from pathlib import Path

from tests.product.clients.conftest import LIMIT_S, NODE, NODE_CLIENT, RunNode, finished
from tests.product.clients.served_pool import ServedPool
from tests.unit.pool.world import MIB

IMAGE_BYTES = 15 * MIB


def test_objects_are_watched_and_changed(pool: ServedPool, node: RunNode) -> None:
    finished(node("objects.mjs", pool.make_vm("watched")))


def test_work_is_followed_by_its_task(pool: ServedPool, node: RunNode) -> None:
    finished(node("machine.mjs", pool.make_vm("worked on")))


def test_disk_images_go_in_and_out(pool: ServedPool, node: RunNode, tmp_path: Path) -> None:
    vdi = pool.make_vdi("image", IMAGE_BYTES)
    uuid = pool.get("VDI", vdi)["uuid"]
    process = node("images.mjs", vdi, str(IMAGE_BYTES), str(tmp_path / "arrived"))
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        medium = pool.media.get(uuid)
        if medium is not None and medium.read(IMAGE_BYTES - 7, 7) == b"the end":
            (tmp_path / "arrived").touch()
            break
        time.sleep(0.01)
    finished(process)


def test_whole_machines_go_out_and_in(pool: ServedPool, node: RunNode) -> None:
    finished(node("archives.mjs", pool.make_vm("carried")))


def test_a_session_that_ends_is_replaced(pool: ServedPool, node: RunNode) -> None:
    finished(node("sessions.mjs"))


def test_certificate_of_the_pool_is_enough_to_trust_it(pool: ServedPool, node: RunNode) -> None:
    finished(node("sessions.mjs", NODE_EXTRA_CA_CERTS=str(pool.certificate)))


def test_its_own_command_line(pool: ServedPool) -> None:
    pool.make_vm("seen by the command line")
    words = [NODE, NODE_CLIENT / "node_modules/.bin/xen-api", "--au", pool.url, "root", pool.password]
    line = "call('VM.get_all_records').then(all => L.map(all, 'name_label').join())\n.exit\n"
    ended = subprocess.run(words, input=line, capture_output=True, text=True, timeout=LIMIT_S)
    assert "seen by the command line" in ended.stdout, ended.stderr
