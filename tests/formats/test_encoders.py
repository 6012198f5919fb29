"""The output formats: their bytes, message by message and all at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.formats.encoders import make_format
from qtools.message import Batch, Message, Messages


class Place:
    topic = "events"
    address = "h:4150"
    is_lost = False

    def finish(self, ids: object) -> None: ...
    def requeue(self, ids: object, delay_ms: int) -> None: ...
    def touch(self, ids: object) -> None: ...


BATCH = Batch.of(Place(), Messages.of(Message(7, 1, b"%016x" % n, body) for n, body in enumerate([b"a", b"", b"\xff"])))

GOLDEN = {
    "raw": [b"a\n", b"\n", b"\xff\n"],
    "length32": [b"\0\0\0\1a", b"\0\0\0\0", b"\0\0\0\1\xff"],
    "envelope": [
        b'{"topic":"events","id":"0000000000000000","timestamp":7,"attempts":1,"source":"h:4150","body":"a"}\n',
        b'{"topic":"events","id":"0000000000000001","timestamp":7,"attempts":1,"source":"h:4150","body":""}\n',
        b'{"topic":"events","id":"0000000000000002","timestamp":7,"attempts":1,"source":"h:4150","body_base64":"/w=="}\n',
    ],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_format_as_bytes(name: str) -> None:
    assert make_format(name).pieces(BATCH) == GOLDEN[name]


@pytest.mark.parametrize("name", [*GOLDEN, "msgpack"])
def test_the_joined_bytes_are_those_of_the_messages(name: str) -> None:
    form = make_format(name)
    assert form.join(BATCH) == b"".join(form.pieces(BATCH))
    assert form.join(Batch.empty()) == b""


PARTS = [b"}", b",", b"{", b'"', b"\\", b"topic", b":", b'},{"topic":', b"\n", b"a", b"\xff"]


@given(st.lists(st.lists(st.sampled_from(PARTS)).map(b"".join)))
def test_bodies_that_look_like_the_border_of_two_envelopes(bodies: list[bytes]) -> None:
    batch = Batch.of(Place(), Messages.of(Message(7, 1, b"%016x" % n, body) for n, body in enumerate(bodies)))
    form = make_format("envelope")
    assert form.join(batch) == b"".join(form.pieces(batch))


def test_only_raw_has_a_delimiter() -> None:
    assert make_format("raw", b"\0").join(BATCH) == b"a\0\0\xff\0"
    assert make_format("length32", b"\0").join(BATCH) == b"".join(GOLDEN["length32"])
