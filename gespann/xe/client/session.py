"""The conversation of the thin client: the command line goes out, instructions come back until the server hangs up."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from gespann.xe import frames
from gespann.xe.client.connection import WrongServer
from gespann.xe.client.options import Options

READ_BYTES = 65536
FILE_PIECE_BYTES = 1024 * 1024
FAILED_STATUS = 1  # also what stands if the server never says how it ended
CUT_SHORT = b"Error: the server went away before the command ended. Look what it has done, and repeat it if needed.\n"


def request(options: Options) -> bytes:
    """``POST /cli`` with a word a line, then who we are."""
    words = [*options.words, f"username={options.user}", f"password={options.password}"]
    body = "\n".join(words).encode("utf-8", "surrogateescape")
    lines = ["POST /cli HTTP/1.0", "User-agent: xe-cli/Unix/0.2", "originator: cli"]
    if options.trace_parent:
        lines.append(f"traceparent: {options.trace_parent}")
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def named_files(words: list[str]) -> frozenset[str]:
    """The only files the server may have read or written: those on the command line. To one without a name, which is
    the standard output, it may write anyway."""
    return frozenset([word.partition("=")[2] for word in words if "=" in word])


class OutputClosed(Exception):
    """Whoever read our output has left."""


class Session:
    """One command. ``run`` gives the exit status."""

    def __init__(self, options: Options, stream: socket.socket) -> None:
        self._options, self._stream = options, stream
        self._reader = frames.FrameReader()
        self._files = named_files(options.words)
        self._status: int | None = None
        self._explained = False  # an error has been shown: no exit status follows it
        self._received: list[str] = []  # files that were written

    def run(self) -> int:
        """A command that fails leaves no file: nobody could tell that it is not all there."""
        worked = False
        try:
            status = self._converse()
            worked = status == 0
        except OutputClosed:
            worked = True  # so far; it is only that nobody reads what is said
            raise
        finally:
            for path in self._received if not worked else []:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        return status

    def _converse(self) -> int:
        try:
            self._stream.sendall(request(self._options))
            self._greet()
        except ConnectionError:
            raise WrongServer from None
        while (message := self._receive()) is not None:
            if message.family != frames.COMMAND:
                raise frames.FrameError("expected an instruction")
            self._obey(message)
        if self._status is None and not self._explained:
            write_all(2, CUT_SHORT)
        return FAILED_STATUS if self._status is None else self._status

    def _greet(self) -> None:
        greeting = b""
        while len(greeting) < len(frames.GREETING):
            data = self._stream.recv(len(frames.GREETING) - len(greeting))
            if not data:
                raise WrongServer
            greeting += data
            known = min(len(greeting), len(frames.MAGIC) + 4)  # the magic text and the major version
            if greeting[:known] != frames.GREETING[:known]:
                raise WrongServer
        self._stream.sendall(frames.GREETING)

    def _receive(self) -> frames.Message | None:
        while (message := self._reader.next()) is None:
            try:
                data = self._stream.recv(READ_BYTES)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._reader.feed(data)
        return message

    def _send(self, data: bytes) -> None:
        self._stream.sendall(data)

    def _obey(self, message: frames.Message) -> None:
        match message.tag:
            case frames.PRINT:
                write_all(1, message.text().encode("utf-8", "surrogateescape") + b"\n")
            case frames.PRINT_STDERR:
                self._explained = True
                write_all(2, message.text().encode("utf-8", "surrogateescape"))
            case frames.ERROR:
                self._show_error(message)
            case frames.DEBUG:
                if self._options.debug:
                    write_all(2, message.text().encode("utf-8", "surrogateescape") + b"\n")
            case frames.EXIT:
                self._status = message.number()
            case frames.PROMPT:
                line = sys.stdin.buffer.readline().rstrip(b"\r\n")
                self._send(frames.encode_chunk(line) + frames.encode(frames.BLOB, frames.END))
            case frames.LOAD:
                self._load(message.text())
            case _:
                self._transfer(message)

    def _show_error(self, message: frames.Message) -> None:
        self._explained = True
        params = message.values[1]
        listed = ", ".join(params) if isinstance(params, list) else ""
        text = f"Error code: {message.text()}\nError parameters: {listed}\n"
        write_all(2, text.encode("utf-8", "surrogateescape"))

    def _load(self, path: str) -> None:
        try:
            if not self._permitted(path):
                raise OSError
            file = open(path, "rb")  # noqa: SIM115  closed below
        except OSError:
            self._send(frames.encode(frames.RESPONSE, frames.FAILED))
            return
        with file:
            self._send(frames.encode(frames.RESPONSE, frames.OK))
            while data := file.read(FILE_PIECE_BYTES):
                self._send(frames.encode_chunk(data))
        self._send(frames.encode(frames.BLOB, frames.END))

    def _permitted(self, path: str) -> bool:
        if path in self._files:
            return True
        write_all(2, f"File not permitted: {path}\n".encode())
        return False

    def _transfer(self, message: frames.Message) -> None:
        from gespann.xe.client import transfer

        if message.tag == frames.HTTP_CONNECT:
            from gespann.xe.client.terminal import attach_console

            worked = attach_console(self._options, message.text())
        else:
            path, url = message.text(0), message.text(1)
            move = transfer.upload if message.tag == frames.HTTP_PUT else transfer.download
            worked = self._permitted(path) and move(self._options, path, url, self._heartbeat)
            if worked and path and message.tag == frames.HTTP_GET:
                self._received.append(path)
        self._send(frames.encode(frames.RESPONSE, frames.OK if worked else frames.FAILED))

    def _heartbeat(self) -> None:
        self._send(frames.encode(frames.RESPONSE, frames.WAIT))


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise OutputClosed from None
