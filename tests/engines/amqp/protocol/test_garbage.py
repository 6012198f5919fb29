"""Any bytes at all are frames, or a breach of the protocol, however they are cut."""

from __future__ import annotations

from hypothesis import strategies as st

from qtools.engines.amqp.protocol.frames import AmqpFrameReader
from qtools.engines.amqp.protocol.methods import HEARTBEAT_FRAME, encode_method, frame
from qtools.engines.amqp.protocol.properties import decode_properties
from qtools.engines.amqp.protocol.session import AmqpSession, Login
from qtools.errors import AuthError, BrokerError, ProtocolError
from tests.engines.nsq.protocol.garbage import check_fit_to_show, explore, places, spoilt

from .recordings import FULL, PLAIN, SERVER, TALK, delivery, flat

tags = st.integers(1, 5)
deliveries = st.builds(
    lambda tag, body, key, channel, again, full: delivery(
        tag, body, key=key, channel=channel, again=again, properties=FULL if full else PLAIN, most=40
    ),
    tags, st.binary(max_size=100), st.sampled_from([b"", b"k", b"key"]), st.integers(1, 2), st.booleans(),
    st.booleans(),
)  # fmt: skip
acks = st.builds(lambda tag, many: encode_method(1, "basic.ack", delivery_tag=tag, multiple=many), tags, st.booleans())
others = st.sampled_from([HEARTBEAT_FRAME, encode_method(1, "basic.qos-ok"), frame(4, 1, b""), frame(3, 1, b"x")])
streams = st.lists(st.one_of(deliveries, deliveries, acks, others), max_size=12).map(b"".join)
server = st.sampled_from([data for side, data in TALK if side == "S"])


def outcome(data: bytes, cuts: list[int]) -> tuple[list[object], str]:
    """All that was read, or the error."""
    reader, found, at = AmqpFrameReader(), [], 0
    try:
        for stop in [*sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]:
            found += list(flat(reader.read(data[at:stop])))
            assert len(reader) <= len(data)
            at = stop
    except ProtocolError as error:
        check_fit_to_show(error)
        return [], str(error)
    return found, ""


@explore(300, stream=spoilt(st.one_of(streams, server)), cuts=places)
def test_frames(stream: bytes, cuts: list[int]) -> None:
    assert outcome(stream, cuts) == outcome(stream, []) == outcome(stream, list(range(len(stream))))


@explore(1000, data=st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    assert outcome(data, []) == outcome(data, list(range(len(data))))


@explore(200, stream=spoilt(st.just(SERVER)), size=st.integers(1, 5000))
def test_a_session(stream: bytes, size: int) -> None:
    session = AmqpSession(Login())
    session.start()
    try:
        for at in range(0, len(stream), size):
            session.receive(stream[at : at + size])
            if session.state.value == "open" and not session._channels:
                session.open_channel()
                session.open_channel()
            session.take_output()
    except (ProtocolError, AuthError, BrokerError) as error:
        check_fit_to_show(error)


@explore(500, data=spoilt(st.sampled_from([FULL.encode(), PLAIN.encode()])))
def test_properties(data: bytes) -> None:
    try:
        found = decode_properties(data)
    except ProtocolError as error:
        check_fit_to_show(error)
    else:
        found.encode()
