"""gnsq publishes COUNT messages and reads them back. Run as a program: HOST:PORT COUNT.

It ends with status 0 when every message came back, and says what it saw as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import gevent
import gnsq


def main(address: str, count: int) -> int:
    bodies = [b"message %d " % number + bytes([number % 256]) * (number % 100) for number in range(count)]
    wanted = set(bodies)
    seen: dict[str, Any] = {"received": 0, "again": 0, "other": 0, "answers": 0}
    producer = gnsq.Producer(address)
    producer.start()
    half = count // 2
    for body in bodies[:half]:
        seen["answers"] += producer.publish("gnsq", body) == b"OK"
    for start in range(half, count, 50):
        seen["answers"] += producer.multipublish("gnsq", bodies[start : start + 50]) == b"OK"
    producer.close()
    producer.join()

    consumer = gnsq.Consumer("gnsq", "roundtrip", address, max_in_flight=200, backoff_on_requeue=False)

    @consumer.on_message.connect
    def handle(consumer: gnsq.Consumer, message: gnsq.Message) -> None:
        seen["received"] += 1
        if message.attempts == 1 and seen["received"] % 100 == 1:
            seen["again"] += 1
            raise gnsq.NSQRequeueMessage
        seen["other"] += message.body not in wanted
        wanted.discard(message.body)
        if not wanted:
            gevent.spawn_later(0.2, consumer.close)

    consumer.start(block=False)
    consumer.join(30)
    print(json.dumps(seen | {"missing": len(wanted)}))
    return 1 if wanted or seen["other"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
