"""Hashing a password takes long on purpose. Nobody else may wait for it."""

import asyncio
import threading

import pytest

from gespann.array.model import secrets


@pytest.fixture
def scrypt_that_waits(monkeypatch):
    """``running`` counts the hashes under way; none ends before ``go`` is set."""
    go, real = threading.Event(), secrets._scrypt
    running: list[str] = []

    def slow(password: str, *rest) -> bytes:
        running.append(password)
        assert threading.current_thread() is not threading.main_thread(), "the loop stands still meanwhile"
        assert go.wait(120)
        return real(password, *rest)

    monkeypatch.setattr(secrets, "_scrypt", slow)
    yield running, go
    go.set()


async def until(condition) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - a thread does it
            await asyncio.sleep(0)


@pytest.mark.parametrize("command", ["account create night password secret1", "account select grpadmin password new1"])
async def test_others_go_on_while_an_account_gets_its_password(group, scrypt_that_waits, command):
    running, go = scrypt_that_waits
    go.set()
    async with group.connect() as one, group.connect() as other:
        go.clear()
        hashing = asyncio.create_task(one.run(command))
        await until(lambda: len(running) == 3)
        assert (await other.run("whoami")).stdout == "grpadmin\r\n"
        assert not hashing.done()
        go.set()
        assert (await hashing).exit_status == 0


async def test_guessers_who_hang_up_do_not_pile_up_work(group, scrypt_that_waits):
    """Each guess that is cut off leaves its hash running; the next one must not start beside it."""
    running, go = scrypt_that_waits
    guesses = [asyncio.create_task(group.control.accounts.authenticate("grpadmin", f"guess{n}")) for n in range(20)]
    await until(lambda: len(running) == 2)
    for guess in guesses:
        guess.cancel()
    await asyncio.gather(*guesses, return_exceptions=True)
    late = asyncio.create_task(group.control.accounts.authenticate("grpadmin", "late"))
    for _ in range(100):
        await asyncio.sleep(0)
    assert sorted(running) == ["guess0", "guess1"]  # each in a thread of its own
    go.set()
    assert await late is False
    assert (sorted(running[:2]), running[2:]) == (["guess0", "guess1"], ["late"])
