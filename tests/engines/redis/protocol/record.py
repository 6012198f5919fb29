"""Records what real servers answer. Out: recordings.json, which the tests of the protocol read.

    $ python -m tests.engines.redis.protocol.record

Each case is the words of a command, the bytes that were sent, which this code packs by itself, and the bytes that came
back, both as latin-1. A recording is one server and one version of RESP.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("recordings.json")

Words = Sequence[str | int]
CASES: list[Words] = [
    ("PING",),
    ("XADD", "events", "1-1", "body", "first"),
    ("XADD", "events", "NOMKSTREAM", "1-2", "body", "a\r\nb\x00\xff"),
    ("XADD", "events", "1-3", "body", ""),
    ("XADD", "events", "1-4", "body", "b", "key", "k", "header:key", "v", "null-header:n", ""),
    ("XADD", "events", "1-5", "temperature", "20", "place", "north"),
    ("XADD", "missing", "NOMKSTREAM", "*", "body", "x"),
    ("XADD", "events", "1-1", "body", "again"),
    ("SET", "text", "x"),
    ("XADD", "text", "*", "body", "x"),
    ("XLEN", "events"),
    ("XRANGE", "events", "-", "+", "COUNT", 2),
    ("XRANGE", "events", "(1-4", "+"),
    ("XREADGROUP", "GROUP", "own", "me", "COUNT", 10, "STREAMS", "events", ">"),
    ("XGROUP", "CREATE", "events", "own", "0-0"),
    ("XGROUP", "CREATE", "events", "own", "0-0"),
    ("XREADGROUP", "GROUP", "own", "me", "COUNT", 3, "STREAMS", "events", ">"),
    ("XREADGROUP", "GROUP", "own", "me", "COUNT", 10, "STREAMS", "events", ">"),
    ("XREADGROUP", "GROUP", "own", "me", "COUNT", 10, "BLOCK", 1, "STREAMS", "events", ">"),
    ("XREADGROUP", "GROUP", "own", "me", "COUNT", 2, "STREAMS", "events", "1-1"),
    ("XREAD", "COUNT", 2, "STREAMS", "events", "1-3"),
    ("XREAD", "COUNT", 2, "STREAMS", "events", "1-5"),
    ("XACK", "events", "own", "1-1", "1-2", "9-9"),
    ("XPENDING", "events", "own"),
    ("XPENDING", "events", "own", "-", "+", 10, "nobody"),
    ("XDEL", "events", "1-3"),
    ("XCLAIM", "events", "own", "other", 0, "1-3", "1-4", "IDLE", 5, "JUSTID"),
    ("XCLAIM", "events", "own", "other", 0, "1-4", "1-5"),
    ("XAUTOCLAIM", "events", "own", "me", 0, "0-0", "COUNT", 100),
    ("XINFO", "GROUPS", "nothing"),
    ("XGROUP", "DELCONSUMER", "events", "own", "nobody"),
    ("SCAN", 0, "COUNT", 1000, "TYPE", "stream"),
    ("HGETALL", "nothing"),
    ("NOSUCH", "command"),
]


def packed(words: Words) -> bytes:
    strings = [str(word).encode("latin-1") for word in words]
    return b"*%d\r\n" % len(strings) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in strings)


def ask(connection: socket.socket, sent: bytes) -> bytes:
    """What comes back until the connection is quiet: the answers here are short, and come at once."""
    connection.sendall(sent)
    connection.settimeout(20)
    answer = connection.recv(1 << 16)
    connection.settimeout(0.05)
    try:
        while more := connection.recv(1 << 16):
            answer += more
    except TimeoutError:
        pass
    return answer


def record(kind: str, resp: int, room: Path) -> dict[str, Any]:
    from harness.redis import RedisServer, version_of

    server = RedisServer(kind, room)
    server.start()
    try:
        with server.client() as client:
            version = version_of(client, kind)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            cases = []
            if resp == 3:
                ask(connection, packed(("HELLO", 3)))
            for words in CASES:
                sent = packed(words)
                answer = ask(connection, sent)
                cases.append({"words": words, "sent": sent.decode("latin-1"), "answer": answer.decode("latin-1")})
        return {"server": f"{kind} {version}", "resp": resp, "cases": cases}
    finally:
        server.close()


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    with tempfile.TemporaryDirectory() as room:
        made = [record(kind, resp, Path(room) / f"{kind}-{resp}") for kind in ("redis", "valkey") for resp in (2, 3)]
    FILE.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
