"""One pool for all foreign clients; each test works with objects of its own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import pytest

from gespann.pool.api.server import Address, ApiServer
from gespann.pool.member import MemberApi
from gespann.xe.server import serve_cli
from tests.conftest import ROOT
from tests.product.clients.served_pool import ServedPool

NODE = ROOT / ".venv/bin/node"
NODE_CLIENT = ROOT / "var/cache/node-client"
LIMIT_S = 120.0

RunNode = Callable[..., Popen[str]]


#: a web console as it is built: a page, hashed assets, and what lies beside it must stay unseen
WEB_FILES = {
    "index.html": b"<!doctype html><title>Console</title><script type=module src=/assets/app-5f3a.js></script>",
    "assets/app-5f3a.js": b"export const started = true\n",
    "assets/app-5f3a.css": b"body { margin: 0 }\n",
    "assets/logo.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "assets/text.woff2": b"wOF2",
    "manifest.webmanifest": b"{}",
}


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPool]:
    beside = tmp_path_factory.mktemp("web")
    (beside / "secret.txt").write_text("not for the web")
    web = beside / "files"
    for name, data in WEB_FILES.items():
        path = web / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (web / "link.txt").symlink_to(beside / "secret.txt")
    with ServedPool(web) as served:
        yield served


@pytest.fixture
def member_url(pool: ServedPool) -> Iterator[str]:
    """A host of the pool that is not its coordinator; it serves the same files."""
    api = MemberApi(pool.address, pool.coordinator.agent, pool.coordinator.clock)
    server = ApiServer(api, cli=serve_cli, web=pool.web, streams=False)
    port = pool.run(server.listen_tcp(Address("127.0.0.1", 0), None))
    yield f"http://127.0.0.1:{port}"
    pool.run(server.stop())


@pytest.fixture(params=["json-rpc", "xml-rpc"])
def node(request: pytest.FixtureRequest, pool: ServedPool) -> Iterator[RunNode]:
    """Starts one of the scripts in ``node/`` with the Node client, once for each transport; ``finished`` waits for it.
    Standard error comes with standard output: a failed assertion of the script is the message of the test."""
    assert (NODE_CLIENT / "node_modules/xen-api").is_dir(), f"{NODE_CLIENT} is missing: run setup/prepare test"
    started: list[Popen[str]] = []

    def run(script: str, *words: str, **environment: str) -> Popen[str]:
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NODE_")},
            **{"POOL_URL": pool.url, "POOL_PASSWORD": pool.password, "NODE_CLIENT": str(NODE_CLIENT)},
            **{"TRANSPORT": request.param, **environment},
        }
        path = Path(__file__).parent / "node" / script
        started.append(Popen([NODE, path, *words], env=env, stdout=PIPE, stderr=STDOUT, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def finished(process: Popen[str]) -> None:
    said, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, said) == (0, "done\n"), said
