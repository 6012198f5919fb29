"""NATS's own client for Python, as a command: lines of stdin into a stream, or a consumer's messages to stdout.

    python nats_py.py publish HOST:PORT SUBJECT < lines      each line confirmed, a window of 1,000 at a time
    python nats_py.py read HOST:PORT STREAM CONSUMER COUNT   each message acknowledged after it was printed

It does what q-pipe and q-tail do, in the way that the library's documentation shows for speed.
"""

from __future__ import annotations

import asyncio
import sys

import nats

WINDOW = 1000


async def publish(address: str, subject: str) -> None:
    client = await nats.connect(f"nats://{address}")
    stream = client.jetstream(publish_async_max_pending=4 * WINDOW)
    waiting = []
    for line in sys.stdin.buffer:
        waiting.append(await stream.publish_async(subject, line.removesuffix(b"\n")))
        if len(waiting) == WINDOW:
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)
    await client.close()


async def read(address: str, stream: str, consumer: str, count: int) -> None:
    client = await nats.connect(f"nats://{address}")
    reader = await client.jetstream().pull_subscribe_bind(consumer, stream)
    write = sys.stdout.buffer.write
    while count > 0:
        messages = await reader.fetch(min(count, WINDOW), timeout=10)
        for message in messages:
            write(message.data + b"\n")
        sys.stdout.buffer.flush()
        for message in messages:
            await message.ack()
        count -= len(messages)
    await client.flush()
    await client.close()


def main() -> None:
    if sys.argv[1] == "publish":
        asyncio.run(publish(sys.argv[2], sys.argv[3]))
    else:
        asyncio.run(read(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))


if __name__ == "__main__":
    main()
