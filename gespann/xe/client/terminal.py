"""A VM's text console in this terminal, raw, until Ctrl-] or until either side ends."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty

from gespann.xe.client.connection import ConnectionRefused, WrongServer, read_header
from gespann.xe.client.options import Options
from gespann.xe.client.transfer import open_url

LEAVE = b"\x1d"  # Ctrl-]
READ_BYTES = 4096


def attach_console(options: Options, url: str) -> bool:
    """False, with a line on stderr, if there is no console to be had."""
    try:
        stream, target = open_url(options, url)
        stream.sendall(f"CONNECT {target} HTTP/1.0\r\ncontent-length: 0\r\n\r\n".encode())
        status, _, rest = read_header(stream)
    except (OSError, ConnectionRefused, WrongServer) as error:
        print(f"No console: {error or 'no answer that could be understood'}", file=sys.stderr)
        return False
    with stream:
        if status != 200:
            print(f"No console: the server answers {status}", file=sys.stderr)
            return False
        _with_raw_terminal(stream, rest)
    return True


def _with_raw_terminal(stream: socket.socket, rest: bytes) -> None:
    keyboard = sys.stdin.fileno()
    if not os.isatty(keyboard):
        relay(stream, keyboard, 1, rest)
        return
    before = termios.tcgetattr(keyboard)
    os.write(2, b"Connected. Leave with Ctrl-]\r\n")
    try:
        tty.setraw(keyboard)
        relay(stream, keyboard, 1, rest)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def relay(stream: socket.socket, keyboard: int, screen: int, rest: bytes) -> None:
    """Bytes both ways. Ends with Ctrl-], with the end of the console, or with the end of what is typed."""
    _write(screen, rest)
    while True:
        # TLS may hold bytes that select cannot see.
        pending = getattr(stream, "pending", lambda: 0)()
        ready = [stream.fileno()] if pending else select.select([stream.fileno(), keyboard], [], [])[0]
        if stream.fileno() in ready:
            data = stream.recv(READ_BYTES)
            if not data:
                return
            _write(screen, data)
        if keyboard in ready:
            typed = os.read(keyboard, READ_BYTES)
            before, leave, _ = typed.partition(LEAVE)
            if before:
                stream.sendall(before)
            if leave or not typed:
                return


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
