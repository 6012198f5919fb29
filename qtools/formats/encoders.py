"""The output formats: raw, envelope, msgpack, length32. In: a batch. Out: bytes.

q-pipe reads each of them. q-tail has other formats for a terminal, and q-pubsub-http adds Server-Sent Events.
"""

from __future__ import annotations

from collections.abc import Callable

from qtools.formats.lines import join_lengths, join_lines
from qtools.message import Batch


class Format:
    """Encodes a batch. pieces: the bytes of each message. join: the same bytes as one, made in the fastest way."""

    def __init__(self, pieces: Callable[[Batch], list[bytes]], join: Callable[[Batch], bytes] | None = None) -> None:
        self.pieces = pieces
        self.join = join or (lambda batch: b"".join(pieces(batch)))


def make_format(name: str, delimiter: bytes = b"\n") -> Format:
    """The format called `name`. Only raw uses the delimiter."""
    if name == "raw":
        return Format(
            lambda batch: [body + delimiter for body in batch.bodies],
            lambda batch: join_lines(batch.bodies, delimiter),
        )
    if name == "length32":
        return Format(
            lambda batch: [join_lengths([body]) for body in batch.bodies],
            lambda batch: join_lengths(batch.bodies),
        )
    from qtools.formats.envelope import encode_envelopes, encode_msgpack, join_envelopes

    return {"envelope": Format(encode_envelopes, join_envelopes), "msgpack": Format(encode_msgpack)}[name]
