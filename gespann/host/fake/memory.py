"""Fake machines outlive the agent's process, as real ones do: their state (no secret is in it) in one file of RUN,
which a real host empties at boot."""

from pathlib import Path

import msgspec

from gespann.host.fake.guest import FakeDomain
from gespann.system.files import write_secret

FILE = "fake-domains.json"


def save_domains(run_dir: Path, domains: list[FakeDomain]) -> None:
    write_secret(run_dir / FILE, msgspec.json.encode(domains))


def load_domains(run_dir: Path) -> list[FakeDomain]:
    path = run_dir / FILE
    return msgspec.json.decode(path.read_bytes(), type=list[FakeDomain]) if path.exists() else []
