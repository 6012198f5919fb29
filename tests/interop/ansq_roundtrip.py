"""ansq publishes COUNT messages and reads them back. Run as a program: HOST:PORT COUNT.

It ends with status 0 when every message came back, and says what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import ansq


async def main(address: str, count: int) -> int:
    bodies = [b"message %d " % number + bytes([number % 256]) * (number % 100) for number in range(count)]
    wanted = set(bodies)
    seen: dict[str, Any] = {"received": 0, "again": 0, "other": 0, "answers": 0}
    writer = await ansq.create_writer(nsqd_tcp_addresses=[address])
    half = count // 2
    for body in bodies[:half]:
        seen["answers"] += (await writer.pub("ansq", body)).is_ok
    for start in range(half, count, 50):
        seen["answers"] += (await writer.mpub("ansq", *bodies[start : start + 50])).is_ok
    await writer.close()

    reader = await ansq.create_reader(topic="ansq", channel="roundtrip", nsqd_tcp_addresses=[address])
    async with asyncio.timeout(30):
        async for message in reader.messages():
            seen["received"] += 1
            if message.attempts == 1 and seen["received"] % 100 == 1:
                seen["again"] += 1
                await message.req(timeout=0)
                continue
            seen["other"] += message.body not in wanted
            wanted.discard(message.body)
            await message.fin()
            if not wanted:
                break
    await reader.close()
    print(json.dumps(seen | {"missing": len(wanted)}))
    return 1 if wanted or seen["other"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]))))
