"""A server between a client and a real one, which answers some commands with an error. In: the real server's port. Out:
a port. Commands are passed on one by one, so that replies stay in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import hiredis
from harness.redis import packed

Refuse = Callable[[bytes], bytes]  # the name of a command → the line of an error, or b"" to pass it on


@asynccontextmanager
async def refusing(target: int, refuse: Refuse) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader(notEnoughData=...)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        replies = hiredis.Reader(notEnoughData=...)
        try:
            while data := await reader.read(1 << 16):
                commands.feed(data)
                while (words := commands.gets()) is not ...:
                    if error := refuse(words[0]):
                        writer.write(b"-%b\r\n" % error)
                        continue
                    inner_writer.write(packed(words))
                    while True:
                        answer = await inner_reader.read(1 << 16)
                        writer.write(answer)
                        replies.feed(answer)
                        if not answer or replies.gets() is not ...:
                            break
        except OSError:
            pass
        finally:
            for each in (inner_writer, writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
