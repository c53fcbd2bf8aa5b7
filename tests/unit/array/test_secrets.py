import pytest

from gespann.array.model.secrets import Vault, check_password, generate_password, hash_password
from gespann.system.files import write_secret


async def test_passwords():
    stored = hash_password("correct horse")
    assert "correct" not in stored
    assert stored != hash_password("correct horse")
    assert await check_password("correct horse", stored)
    assert not await check_password("correct horsf", stored)
    assert not await check_password("correct horse", None)


def test_generated_passwords_differ():
    assert len({generate_password() for _ in range(100)}) == 100


def test_vault_opens_only_what_it_sealed_for_whom_it_sealed_it(tmp_path):
    vault = Vault(tmp_path / "key")
    sealed = vault.seal("alice", "secret")
    assert b"secret" not in sealed
    assert Vault(tmp_path / "key").open("alice", sealed) == "secret"
    with pytest.raises(ValueError, match="does not open"):
        vault.open("bob", sealed)
    with pytest.raises(ValueError, match="does not open"):
        vault.open("alice", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(ValueError, match="does not open"):
        Vault(tmp_path / "other").open("alice", sealed)


def test_vault_key_open_to_others_is_refused(tmp_path):
    Vault(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(PermissionError):
        Vault(tmp_path / "key")


async def test_a_group_without_the_key_of_its_secrets_does_not_start_with_another(group):
    key = group.data_dir / "secrets.key"
    await group.cli("chapuser create u password abcdefabcdef")
    kept = key.read_bytes()
    await group.stop()
    key.unlink()
    with pytest.raises(RuntimeError, match="put it back"):
        await group.start()
    assert not key.exists()
    write_secret(key, kept)
    await group.start()
    assert group.control.chap_users.secret("u") == "abcdefabcdef"
