"""pynsq publishes COUNT messages and reads them back. Run as a program: HOST:PORT COUNT UPGRADES CA_FILE.

UPGRADES: any of tls, snappy, deflate, with commas; or nothing. CA_FILE: whom to trust, with tls.

A program of its own, because pynsq brings tornado, and a loop and a logger of its own. It ends with status 0 when
every message came back, and says what it saw as JSON.
"""

from __future__ import annotations

import json
import ssl
import sys
from typing import Any

import nsq
import tornado.ioloop


def main(address: str, count: int, upgrades: str, ca: str) -> int:
    bodies = [b"message %d " % number + bytes([number % 256]) * (number % 100) for number in range(count)]
    wanted = set(bodies)
    seen: dict[str, Any] = {"received": 0, "again": 0, "other": 0, "answers": 0}
    loop = tornado.ioloop.IOLoop.current()
    upgrade: dict[str, Any] = {name: True for name in upgrades.split(",") if name and name != "tls"}
    if "tls" in upgrades:
        upgrade |= {"tls_v1": True, "tls_options": {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": ca}}

    def handle(message: nsq.Message) -> bool:
        seen["received"] += 1
        if message.attempts == 1 and seen["received"] % 100 == 1:
            seen["again"] += 1
            message.requeue(delay=0, backoff=False)
            return True
        if message.body in wanted:
            wanted.discard(message.body)
        else:
            seen["other"] += 1
        message.finish()
        if not wanted:
            loop.call_later(0.2, loop.stop)
        return True

    nsq.Reader(
        topic="pynsq",
        channel="roundtrip",
        nsqd_tcp_addresses=[address],
        max_in_flight=200,
        message_handler=handle,
        **upgrade,
    )
    writer = nsq.Writer([address], **upgrade)

    def answered(_connection: object, data: object) -> None:
        seen["answers"] += data == b"OK"

    def publish() -> None:
        if not writer.conns:
            loop.call_later(0.05, publish)
            return
        half = count // 2
        for body in bodies[:half]:
            writer.pub("pynsq", body, answered)
        for start in range(half, count, 50):
            writer.mpub("pynsq", bodies[start : start + 50], answered)

    publish()
    loop.call_later(30, loop.stop)
    loop.start()
    print(json.dumps(seen | {"missing": len(wanted)}))
    return 1 if wanted or seen["other"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
