"""What the tests of the reader share: its events as plain rows, whatever the chunks were."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qtools.engines.jetstream.protocol.server_reader import ControlLine, ServerReader

Row = tuple[Any, ...]


def rows_of(chunks: Iterable[bytes]) -> list[Row]:
    """("MSG", sid, subject, reply, headers, body) for each message, (verb, argument) for each line."""
    reader, rows = ServerReader(), list[Row]()
    for chunk in chunks:
        for event in reader.receive(chunk):
            if isinstance(event, ControlLine):
                rows.append((event.verb, event.argument))
                continue
            headers = event.headers or [b""] * len(event)
            columns = zip(event.subjects, event.replies, headers, event.bodies, strict=True)
            rows += [("MSG", event.sid, *row) for row in columns]
    return rows


def bytewise(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]
