"""A web console in the directory of ``--web``: its files, and what it asks for. The lite console of others is in no
package registry; ``node/web_console.mjs`` does what it does, with a browser's own fetch and WebSocket."""

import http.client
import os
import subprocess
from pathlib import Path

import pytest

from gespann.main.coordinator import CannotStart, Coordinator, Settings
from tests.product.clients.conftest import LIMIT_S, NODE, WEB_FILES
from tests.product.clients.served_pool import ServedPool


def ask(pool: ServedPool, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None):
    """Status, headers, body. The path goes out as it is: no client tidies it."""
    plain = http.client.HTTPConnection(pool.address, 80, timeout=LIMIT_S)
    try:
        plain.request(method, path, body, headers or {})
        answer = plain.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        plain.close()


def test_what_a_web_console_does(pool: ServedPool, member_url: str) -> None:
    vm = pool.make_vm("watched by the web")
    env = {"PATH": os.environ["PATH"], "NODE_EXTRA_CA_CERTS": str(pool.certificate)}
    env |= {"POOL_URL": pool.url, "POOL_PASSWORD": pool.password, "MEMBER_URL": member_url}
    words = [NODE, Path(__file__).parent / "node/web_console.mjs", vm]
    ended = subprocess.run(words, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("assets/app-5f3a.js", "text/javascript; charset=utf-8"),
        ("assets/app-5f3a.css", "text/css; charset=utf-8"),
        ("assets/logo.svg", "image/svg+xml"),
        ("assets/text.woff2", "font/woff2"),
        ("manifest.webmanifest", "application/manifest+json"),
    ],
)
def test_files_are_what_they_are(pool: ServedPool, path: str, kind: str) -> None:
    status, headers, body = ask(pool, "GET", f"/{path}")
    assert (status, headers["Content-Type"], body) == (200, kind, WEB_FILES[path])
    assert headers["Cache-Control"] == "no-cache"
    status, headers, body = ask(pool, "HEAD", f"/{path}")
    assert (status, headers["Content-Length"], body) == (200, str(len(WEB_FILES[path])), b"")
    status, _, body = ask(pool, "GET", f"/{path}", {"If-None-Match": headers["ETag"]})
    assert (status, body) == (304, b"")


def test_root_is_the_page_for_get_and_the_api_for_post(pool: ServedPool) -> None:
    assert ask(pool, "GET", "/")[2] == WEB_FILES["index.html"]
    call = b"<methodCall><methodName>system.isAlive</methodName><params/></methodCall>"
    status, headers, body = ask(pool, "POST", "/", body=call)
    assert (status, headers["Content-Type"]) == (200, "text/xml")
    assert b"<boolean>1</boolean>" in body
    assert ask(pool, "OPTIONS", "/")[1]["Access-Control-Allow-Origin"] == "*"


OUTSIDE = [
    *(
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/assets/..%5c..%5csecret",
    ),
    *("//etc/passwd", "/%2fetc/passwd", "/link.txt", "/assets", "/nothing", "/index.html%00.js", "/%ff.html"),
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_outside_is_served(pool: ServedPool, path: str) -> None:
    status, _, body = ask(pool, "GET", path)
    assert status in (400, 404)
    assert b"not for the web" not in body
    assert b"root:" not in body


async def test_a_directory_that_is_missing_is_said_at_start(tmp_path: Path) -> None:
    for name in ("data", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    settings = Settings(data=tmp_path / "data", run=tmp_path / "run", web=tmp_path / "missing")
    with pytest.raises(CannotStart, match="missing: no directory"):
        await Coordinator(settings, drivers={}).start()
