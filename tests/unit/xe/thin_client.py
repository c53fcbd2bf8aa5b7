"""A thin client for tests: runs one command through the engine over a real socket pair, frame by frame."""

import asyncio
import shlex
import socket
from dataclasses import dataclass, field

from gespann.xe import frames
from gespann.xe.server import serve_cli
from tests.unit.xe.fake_xenapi import FakeXenApi


@dataclass
class Outcome:
    """What the user would see. ``status`` is 1 if the engine never said."""

    stdout: str = ""
    stderr: str = ""
    status: int = 1
    seen: list[frames.Message] = field(default_factory=list)


@dataclass
class Client:
    """``typed``: answers to prompts in turn. ``files``: what Load finds; ``transfers``: whether HTTP transfers work."""

    api: FakeXenApi
    typed: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    transfers: bool = True

    async def run(self, line: str, *, local_root: bool = True) -> Outcome:
        return await self.run_body("\n".join(shlex.split(line)).encode(), local_root=local_root)

    async def run_body(self, body: bytes, *, local_root: bool = True) -> Outcome:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        serving = asyncio.ensure_future(self._serve(body, reader, writer, local_root))
        try:
            return await self._converse(*await asyncio.open_connection(sock=ours))
        finally:
            await serving

    async def _serve(
        self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, local_root: bool
    ) -> None:
        try:
            await serve_cli(self.api, body, reader, writer, local_root=local_root)
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Outcome:
        assert await reader.readexactly(35) == frames.GREETING
        writer.write(frames.GREETING)
        outcome, decoder = Outcome(), frames.FrameReader()
        while data := await reader.read(65536):
            decoder.feed(data)
            while (message := decoder.next()) is not None:
                outcome.seen.append(message)
                writer.write(self._obey(message, outcome))
        writer.close()
        return outcome

    def _obey(self, message: frames.Message, outcome: Outcome) -> bytes:
        match message.tag:
            case frames.PRINT:
                outcome.stdout += message.text() + "\n"
            case frames.PRINT_STDERR:
                outcome.stderr += message.text()
            case frames.ERROR:
                outcome.stderr += f"Error code: {message.text()}\nError parameters: {', '.join(message.values[1])}\n"
            case frames.EXIT:
                outcome.status = message.number()
            case frames.PROMPT:
                answer = self.typed.pop(0).encode()
                return frames.encode_chunk(answer) + frames.encode(frames.BLOB, frames.END)
            case frames.LOAD if message.text() in self.files:
                data = frames.encode_chunk(self.files[message.text()])
                return frames.encode(frames.RESPONSE, frames.OK) + data + frames.encode(frames.BLOB, frames.END)
            case frames.LOAD:
                return frames.encode(frames.RESPONSE, frames.FAILED)
            case frames.HTTP_GET | frames.HTTP_PUT | frames.HTTP_CONNECT:
                wait = frames.encode(frames.RESPONSE, frames.WAIT)
                return wait + frames.encode(frames.RESPONSE, frames.OK if self.transfers else frames.FAILED)
        return b""
