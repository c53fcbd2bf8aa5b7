"""The tools people have: libiscsi's and QEMU's."""

import re
import subprocess
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, ChapUser, Configure, Target, VolumeList
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess

pytestmark = pytest.mark.engine
SECRET = "a-secret-of-vm1"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)


@pytest.fixture
def url(engine: EngineProcess, control: Control) -> str:
    """Of a volume that demands CHAP."""
    target = Target(
        volume=VOLUME,
        name=NAME,
        online=True,
        access=[Access(chap_user="vm1")],
        vendor="EQLOGIC",
        product="100E-00",
        revision="4.3",
    )
    control.call(Configure(targets=[target], chap_users=[ChapUser(user="vm1", secret=SECRET)]))
    return f"iscsi://vm1%{SECRET}@127.0.0.1:{engine.port}/{NAME}/0"


def test_iscsi_ls_finds_the_target(engine: EngineProcess, url: str) -> None:
    listed = run("iscsi-ls", "-s", f"iscsi://vm1%{SECRET}@127.0.0.1:{engine.port}")
    assert f"Target:{NAME} Portal:127.0.0.1:{engine.port},1" in listed.stdout
    assert re.search(r"Lun:0\s+Type:DIRECT_ACCESS", listed.stdout)


def test_iscsi_inq_shows_what_the_group_said(url: str) -> None:
    shown = run("iscsi-inq", url).stdout
    assert "Vendor:EQLOGIC" in shown
    assert "Product:100E-00" in shown
    assert "NAA" in run("iscsi-inq", "-e", "1", "-c", "131", url).stdout
    assert VOLUME in run("iscsi-inq", "-e", "1", "-c", "128", url).stdout


def test_iscsi_readcapacity16_shows_the_size(url: str) -> None:
    assert f"Total size:{64 * MIB}" in run("iscsi-readcapacity16", url).stdout


def test_a_wrong_secret_is_refused(url: str) -> None:
    refused = run("iscsi-inq", url.replace(SECRET, "not-the-secret"))
    assert refused.returncode != 0
    assert "Authentication" in refused.stdout + refused.stderr


def test_qemu_writes_reads_flushes_and_discards(control: Control, url: str) -> None:
    steps = ["write -P 7 0 64k", "write -P 9 1M 20M", "flush", "read -P 9 1M 20M", "discard 1M 20M", "read -P 0 1M 20M"]
    done = run("qemu-io", "-f", "raw", *[word for step in steps for word in ("-c", step)], "-c", "read -P 7 0 64k", url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verification failed" not in done.stdout
    assert control.call(VolumeList(volume=VOLUME)).volumes[0].allocated_bytes < MIB


@pytest.mark.parametrize("digest", ["none", "crc32c", "none-crc32c"])
def test_qemu_with_its_header_digest_setting(engine: EngineProcess, url: str, digest: str) -> None:
    options = (
        f"driver=iscsi,transport=tcp,portal=127.0.0.1:{engine.port},target={NAME},lun=0,user=vm1,header-digest={digest}"
    )
    options += ",password-secret=chap"
    done = run(
        "qemu-io",
        "--object",
        f"secret,id=chap,data={SECRET}",
        "--image-opts",
        *["-c", "write -P 3 0 4M", "-c", "read -P 3 0 4M"],
        options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verification failed" not in done.stdout


def test_qemu_img_copies_in_and_compares(url: str, engine: EngineProcess) -> None:
    image = engine.folder / "image.raw"
    image.write_bytes(bytes(MIB) + b"\x42" * MIB + bytes(2 * MIB))
    copied = run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), url)
    assert copied.returncode == 0, copied.stderr
    compared = run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), url)
    assert "identical" in compared.stdout, compared.stdout + compared.stderr
