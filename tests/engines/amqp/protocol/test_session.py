"""A connection from its first byte on: the recorded conversation, refusals, tuning, channels, close."""

from __future__ import annotations

from typing import Any

import pytest

from qtools.engines.amqp.protocol.deliveries import Deliveries
from qtools.engines.amqp.protocol.frames import Content
from qtools.engines.amqp.protocol.methods import HEARTBEAT_FRAME, Method, decode_method, encode_method
from qtools.engines.amqp.protocol.properties import Properties, decode_properties
from qtools.engines.amqp.protocol.publishes import BatchEncoder, Outgoing, encode_each
from qtools.engines.amqp.protocol.session import (
    AmqpSession,
    AmqpState,
    Blocked,
    ChannelClosed,
    ConnectionClosed,
    Login,
    Opened,
)  # fmt: skip
from qtools.errors import AuthError, BrokerError, ProtocolError

from .recordings import FULL, PLAIN, TALK, delivery, flat

LOGIN = Login(properties=(("product", "qtools"), ("version", "1.0")))


class Replay:
    """The recorded conversation: the session has to send what the client sent, byte for byte."""

    def __init__(self, chunk: int) -> None:
        self.session = AmqpSession(LOGIN)
        self.left = [(side, data) for side, data in TALK]
        self.events: list[Any] = []
        self._chunk = chunk
        self._sent = b""

    def exchange(self) -> None:
        """Check what is to be sent, and receive what the broker answered."""
        while self.session.has_output:
            self._sent += self.session.take_output()
            while self.left and self.left[0][0] == "C" and len(self._sent) >= len(self.left[0][1]):
                _, expected = self.left.pop(0)
                assert self._sent[: len(expected)] == expected
                self._sent = self._sent[len(expected) :]
                _, answer = self.left.pop(0)
                for at in range(0, len(answer), self._chunk):
                    self.events += self.session.receive(answer[at : at + self._chunk])

    def do(self, channel: int, name: str, **arguments: Any) -> None:
        self.session.send(channel, name, **arguments)


@pytest.mark.parametrize("chunk", [100_000, 1, 7])
def test_the_recorded_conversation(chunk: int) -> None:
    talk = Replay(chunk)
    session = talk.session
    session.start()
    talk.exchange()
    assert talk.events == [Opened()]
    assert (session.heartbeat, session.frame_max, session.channel_max) == (30, 131_072, 2047)
    assert dict(session.server_properties)["version"] == b"3.10.8"
    assert session.open_channel() == 1
    talk.exchange()
    for name, arguments in (
        ("exchange.declare", {"exchange": "events", "type": "fanout", "durable": True}),
        ("queue.declare", {"queue": "events/own", "durable": True, "arguments": [("x-queue-type", "quorum")]}),
        ("queue.bind", {"queue": "events/own", "exchange": "events", "routing_key": "#"}),
        ("confirm.select", {}),
    ):
        talk.do(1, name, **arguments)
        talk.exchange()
    encoder = BatchEncoder(1, "events", session.frame_max, b"", Properties(delivery_mode=2, timestamp=1_700_000_000))
    session.send_pieces(encoder.encode(0x10, [b"one", b"", b"three"]))
    others = [
        Outgoing(b"\xff key", FULL.encode(), b"with all properties"),
        Outgoing(b"", PLAIN.encode(), bytes(range(256))),
    ]
    session.send_pieces(encode_each(1, "events", session.frame_max, others))
    talk.exchange()
    session.send_pieces(
        encode_each(1, "amq.direct", session.frame_max, [Outgoing(b"nowhere", PLAIN.encode(), b"returned")])
    )
    talk.exchange()
    assert session.open_channel() == 2
    talk.exchange()
    for name, arguments in (
        ("basic.qos", {"prefetch_count": 10}),
        ("basic.consume", {"queue": "events/own", "consumer_tag": "reader"}),
        ("basic.nack", {"delivery_tag": 5, "multiple": True, "requeue": True}),
        ("basic.ack", {"delivery_tag": 10, "multiple": True}),
    ):
        talk.do(2, name, **arguments)
        if name != "basic.ack":
            talk.exchange()
    talk.do(2, "queue.declare", queue="events/own", passive=True)
    talk.exchange()
    talk.do(2, "queue.delete", queue="events/own")
    talk.exchange()
    talk.do(2, "queue.declare", queue="missing", passive=True)
    talk.exchange()
    talk.do(1, "exchange.delete", exchange="events")
    talk.exchange()
    session.close()
    talk.exchange()
    assert talk.left == []
    assert session.state is AmqpState.CLOSED
    _check(talk.events)


def _check(events: list[Any]) -> None:
    names = [each.name for each in events if isinstance(each, Method)]
    assert names == [
        "channel.open-ok", "exchange.declare-ok", "queue.declare-ok", "queue.bind-ok", "confirm.select-ok",
        "channel.open-ok", "basic.qos-ok", "basic.consume-ok", "queue.declare-ok", "queue.delete-ok", "basic.cancel",
        "exchange.delete-ok",
    ]  # fmt: skip
    found = list(flat(events))
    confirmed = [each[2] for each in found if type(each) is tuple and each[0] == "confirm"]
    assert [abs(tag) for tag in confirmed] == [1, 3, 5, 6]
    (returned,) = [each for each in found if isinstance(each, Content)]
    assert (returned.method.arguments["code"], returned.body) == (312, b"returned")
    assert decode_properties(returned.properties) == PLAIN
    deliveries = [each for each in found if type(each) is tuple and each[0] == "delivery"]
    assert [each[3] for each in deliveries] == list(range(1, 11))
    bodies = [b"one", b"", b"three", b"with all properties", bytes(range(256))]
    assert [each[-1] for each in deliveries] == bodies * 2
    assert [each[4].redelivered for each in deliveries] == [False] * 5 + [True] * 5
    assert [each[4].routing_key for each in deliveries] == [b"", b"", b"", b"\xff key", b""] * 2
    first, again = (decode_properties(each[5]) for each in (deliveries[3], deliveries[8]))
    assert first == FULL
    assert dict(again.headers or ())["x-delivery-count"] == 1
    assert [decode_properties(each[5]).message_id for each in deliveries[:3]] == [b"%016x" % n for n in (16, 17, 18)]
    assert [(each.channel, each.error.code) for each in events if isinstance(each, ChannelClosed)] == [(2, "NOT_FOUND")]
    assert events[-1] == ConnectionClosed(None)


# ── parts of it ──


START = encode_method(0, "connection.start", version_minor=9, mechanisms=b"PLAIN AMQPLAIN", locales=b"en_US")
TUNE = encode_method(0, "connection.tune", channel_max=2047, frame_max=131_072, heartbeat=60)
OPEN_OK = encode_method(0, "connection.open-ok")


def opened(login: Login = LOGIN, tune: bytes = TUNE) -> AmqpSession:
    session = AmqpSession(login)
    session.start()
    assert session.receive(START + tune + OPEN_OK) == [Opened()]
    session.take_output()
    return session


def close(code: int, text: str) -> bytes:
    return encode_method(0, "connection.close", code=code, text=text)


def test_a_refused_login_names_the_reason() -> None:
    session = AmqpSession(LOGIN)
    session.start()
    session.receive(START)
    with pytest.raises(AuthError, match="ACCESS_REFUSED Login was refused") as caught:
        session.receive(close(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."))
    assert caught.value.code == "ACCESS_REFUSED"
    assert session.take_output().endswith(encode_method(0, "connection.close-ok"))


def test_a_vhost_that_does_not_exist() -> None:
    session = AmqpSession(LOGIN)
    session.start()
    session.receive(START + TUNE)
    with pytest.raises(AuthError, match="NOT_ALLOWED vhost nope not found"):
        session.receive(close(530, "NOT_ALLOWED - vhost nope not found"))


def test_a_mechanism_that_is_not_offered() -> None:
    session = AmqpSession(Login("EXTERNAL"))
    session.start()
    with pytest.raises(AuthError, match=r"EXTERNAL is not offered .* it offers PLAIN, AMQPLAIN"):
        session.receive(START)


def test_the_password_is_in_no_repr() -> None:
    assert "secret" not in repr(Login(password="secret"))
    assert Login(user="ä", password="b").response() == b"\0\xc3\xa4\0b"


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [((0, 0, 0), (2047, 131_072, 30)), ((10, 8192, 5), (10, 8192, 5)), ((65535, 2**31, 600), (2047, 131_072, 30))],
)
def test_the_smaller_value_counts(offered: tuple[int, int, int], agreed: tuple[int, int, int]) -> None:
    channels, frame_max, heartbeat = offered
    tune = encode_method(0, "connection.tune", channel_max=channels, frame_max=frame_max, heartbeat=heartbeat)
    session = opened(LOGIN, tune)
    assert (session.channel_max, session.frame_max, session.heartbeat) == agreed


def test_frames_that_are_too_small() -> None:
    with pytest.raises(ProtocolError, match="frames of 100 bytes are less than AMQP's least"):
        opened(LOGIN, encode_method(0, "connection.tune", frame_max=100))


def test_blocked_and_unblocked() -> None:
    session = opened()
    data = encode_method(0, "connection.blocked", reason="low on disk") + encode_method(0, "connection.unblocked")
    assert session.receive(data) == [Blocked("low on disk"), Blocked("")]


def test_heartbeats_are_counted_and_sent() -> None:
    session = opened()
    assert session.receive(HEARTBEAT_FRAME * 2) == []
    session.send_heartbeat()
    assert session.take_output() == HEARTBEAT_FRAME


def test_the_broker_closes_the_connection() -> None:
    session = opened()
    (event,) = session.receive(close(320, "CONNECTION_FORCED - broker forced connection closure"))
    assert isinstance(event, ConnectionClosed)
    assert isinstance(event.error, BrokerError)
    assert event.error.code == "CONNECTION_FORCED"
    assert session.take_output() == encode_method(0, "connection.close-ok")
    assert session.receive(b"anything") == []


def test_the_broker_closes_a_channel() -> None:
    session = opened()
    number = session.open_channel()
    session.take_output()
    refused = encode_method(number, "channel.close", code=404, text="NOT_FOUND - no queue", class_id=50, method_id=10)
    (event,) = session.receive(refused)
    assert isinstance(event, ChannelClosed)
    assert (event.error.code, event.error.text, event.method) == ("NOT_FOUND", "no queue", (50, 10))
    assert session.take_output() == encode_method(number, "channel.close-ok")
    assert session.open_channel() == number


def test_what_comes_on_a_channel_that_we_have_closed_is_no_event() -> None:
    session = opened()
    number = session.open_channel()
    session.close_channel(number)
    assert session.receive(delivery(1, channel=number)) == []
    assert session.open_channel() != number  # its close is not answered yet
    session.receive(encode_method(number, "channel.close-ok"))
    assert session.open_channel() == number


def test_channels_have_an_end() -> None:
    session = opened(LOGIN, encode_method(0, "connection.tune", channel_max=2))
    assert [session.open_channel() for _ in range(2)] == [1, 2]
    with pytest.raises(ValueError, match="all 2 channels"):
        session.open_channel()


@pytest.mark.parametrize(
    "data",
    [
        delivery(1, channel=5),
        encode_method(5, "basic.ack", delivery_tag=1),
        encode_method(0, "basic.ack", delivery_tag=1),
        delivery(1, channel=0),
        START,
        encode_method(0, "connection.close-ok"),
        encode_method(0, "queue.declare-ok"),
    ],
)
def test_what_is_out_of_place(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        opened().receive(data)


def test_a_flow_is_answered() -> None:
    session = opened()
    number = session.open_channel()
    session.take_output()
    assert session.receive(encode_method(number, "channel.flow", active=True)) == []
    assert session.take_output() == encode_method(number, "channel.flow-ok", active=True)


def test_methods_come_back() -> None:
    frame = encode_method(7, "queue.declare", queue="q", passive=True, exclusive=True, arguments=[("a", 1)])
    found = decode_method(7, frame[7:-1])
    assert found.arguments == {
        "reserved_1": 0, "queue": b"q", "passive": True, "durable": False, "exclusive": True, "auto_delete": False,
        "no_wait": False, "arguments": [("a", 1)],
    }  # fmt: skip


def test_an_argument_that_a_method_does_not_have() -> None:
    with pytest.raises(TypeError, match=r"basic\.ack has no argument queue"):
        encode_method(1, "basic.ack", queue="q")


def test_deliveries_are_events() -> None:
    session = opened()
    number = session.open_channel()
    (event,) = session.receive(delivery(1, channel=number) + delivery(2, channel=number))
    assert isinstance(event, Deliveries)
    assert len(event) == 2
