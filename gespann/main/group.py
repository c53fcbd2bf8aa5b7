"""The process of group control.

    python -m gespann.main.group --data DIR --run DIR --ssh HOST:PORT --iscsi HOST:PORT

``setup`` as the first word makes the group and ends. Without it the group is made at the first start.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from gespann.array.data_plane.fake import FakeEngine
from gespann.array.data_plane.link import HELLO, WATCH, EngineClient
from gespann.array.data_plane.supervisor import EngineSupervisor
from gespann.array.group import Group
from gespann.array.model import names
from gespann.array.model.accounts import checked_password
from gespann.array.model.refusals import Refusal
from gespann.system.clock import SystemClock
from gespann.system.files import hold_lock, private_directory, read_secret
from gespann.system.json_lines import JsonLinesClient
from gespann.system.log import start_logging

log = logging.getLogger("gespann.group")

ENGINE_PROGRAM = Path(__file__).parents[2] / "build/engine/release/gespann-engine"


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gespann-group", description="The control plane of a storage group.")
    parser.add_argument(
        "action",
        nargs="?",
        choices=("run", "setup"),
        default="run",
        help="setup: make the group and end (default: run)",
    )
    parser.add_argument("--data", type=Path, required=True, help="database, keys, volumes")
    parser.add_argument("--run", type=Path, help="directory of the engine's socket")
    parser.add_argument("--ssh", type=address, default=("127.0.0.1", 2222), metavar="HOST:PORT", help="the CLI")
    parser.add_argument(
        "--iscsi", type=address, default=("127.0.0.1", 3260), metavar="HOST:PORT", help="where initiators connect"
    )
    parser.add_argument("--group-name", default="group1", help="of a group that is made now")
    parser.add_argument("--group-address", help="address that clients use; default: that of --iscsi")
    parser.add_argument("--admin-password-file", type=Path, help="file of mode 0600 with grpadmin's first password")
    engine = parser.add_mutually_exclusive_group()
    engine.add_argument("--engine", type=Path, default=ENGINE_PROGRAM, help="the engine's program")
    engine.add_argument("--fake-engine", action="store_true", help="no engine: volumes without data")
    return parser.parse_args(words)


def make_group(options: argparse.Namespace, engine: EngineClient) -> Group:
    group = Group(options.data, engine, SystemClock(), ssh=options.ssh)
    password = None
    if options.admin_password_file is not None:
        password = checked_password(read_secret(options.admin_password_file).decode().strip())
    group.set_up(names.group_name(options.group_name), password, options.group_address or options.iscsi[0])
    return group


async def run(options: argparse.Namespace) -> None:
    run_dir = private_directory(options.run or options.data / "run")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    supervisor = None
    engine: EngineClient
    if options.fake_engine:
        engine = FakeEngine(state_path=options.data / "fake-engine.json")
    else:
        socket_path = run_dir / "engine.sock"
        engine = JsonLinesClient(socket_path, hello=HELLO, watch=WATCH)
    group = make_group(options, engine)
    if not options.fake_engine:
        host, port = options.iscsi
        data_dir = options.data / "engine"
        tell = group.control.events.add
        supervisor = EngineSupervisor(
            options.engine,
            data_dir,
            socket_path,
            f"{host}:{port}",
            SystemClock(),
            lambda level, text: tell(level, "9.1.3", text),
        )
        await supervisor.start()
    await group.start()
    log.info("group is up: ssh %s:%d", options.ssh[0], group.ssh_port)
    await stop.wait()
    log.info("stopping; the engine goes on")
    if supervisor is not None:
        await supervisor.stop()
    await group.stop()


def main() -> int:
    options = arguments(sys.argv[1:])
    start_logging()
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    try:
        private_directory(options.data)
        with hold_lock(options.data / "group.lock"):
            if options.action == "setup":
                make_group(options, FakeEngine()).control.database.close()
            else:
                asyncio.run(run(options))
    except (Refusal, OSError, RuntimeError) as error:
        print(f"gespann-group: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
