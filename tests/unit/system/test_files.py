import os
import stat

import pytest

from gespann.system.files import read_secret, write_durable, write_secret


def test_write_replaces_whole_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "f"
    write_durable(path, b"one")
    write_durable(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["f"]


def test_failed_write_changes_nothing(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_durable(tmp_path / "f", b"x")
    assert os.listdir(tmp_path) == ["f"]


def test_secret_is_private_and_an_open_one_is_refused(tmp_path):
    path = tmp_path / "key"
    write_secret(path, b"s3cret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_secret(path) == b"s3cret"
    path.chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        read_secret(path)
