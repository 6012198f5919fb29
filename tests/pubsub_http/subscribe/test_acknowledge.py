"""What is finished, and when: once the client's side has it, or the client says so; everything else comes again."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
from typing import Any

import pytest
from harness.brokers import Broker
from harness.gateway import Bare, Gateway, unchunked
from harness.waiting import wait_until

from tests.pubsub_http.conftest import MakeGateway


def fill(broker: Broker, topic: str, count: int, size: int = 0) -> list[str]:
    bodies = [b"%06d" % number + b"x" * size for number in range(count)]
    broker.create(topic, "me")
    broker.fill(topic, bodies)
    return [body.decode() for body in bodies]


def envelopes(data: bytes) -> list[dict[str, Any]]:
    """The whole envelopes in a streamed answer."""
    return [json.loads(line) for line in unchunked(data).split(b"\n")[:-1]]


# ── ack=auto ──


def test_auto_finishes_what_was_taken(gateway: Gateway, broker: Broker, topic: str) -> None:
    fill(broker, topic, 100)
    with gateway.stream(topic, "me") as stream:
        stream.bodies(100)
        broker.wait_held(topic, "me", 0)


def test_auto_finishes_nothing_of_what_a_stuck_client_has_not_taken(
    gateway: Gateway, broker: Broker, topic: str
) -> None:
    """Its window is closed, and then it dies: what its kernel took counts, what was only written does not."""
    bodies = fill(broker, topic, 2000, size=1000)
    client = Bare(gateway.port, receive_buffer=4096)
    client.get(f"/sub?topic={topic}&channel=me")
    wait_until(lambda: broker.depth(topic, "me").in_flight)
    had = {message["body"] for message in envelopes(client.taken())}
    assert 0 < len(had) < 1000
    wait_until(lambda: broker.depth(topic, "me").held <= 2000 - len(had))
    assert broker.depth(topic, "me").held >= 2000 - len(had)
    client.reset()
    broker.wait_held(topic, "me", 2000 - len(had), 10)  # at once, not after msg_timeout
    rest = {body.decode() for body in broker.bodies(topic, "me")}
    assert not had & rest
    assert had | rest == set(bodies)


def chaos(gateway: Gateway, broker: Broker, topic: str, kills: int, ack: str) -> None:
    """Clients that are killed at random: every message is had and finished by one, or comes again; none is lost."""
    draw = random.Random(7)
    total = 60 * kills
    bodies = set(fill(broker, topic, total, size=200))
    had: set[str] = set()
    acknowledged: set[str] = set()
    for _ in range(kills):
        client = Bare(gateway.port, receive_buffer=4096)
        client.get(f"/sub?topic={topic}&channel=me&ack={ack}&max_in_flight={draw.randint(1, 200)}")
        head = client.read_until(b"\r\n\r\n")
        client.socket.settimeout(0.3)  # who has as many in flight as it wanted gets no more
        with contextlib.suppress(TimeoutError):
            for _ in range(draw.randint(1, 6)):
                head += client.socket.recv(draw.randint(100, 20_000))
        if ack == "auto":  # what its kernel has when it dies is what it had
            had |= {message["body"] for message in envelopes(head + client.taken())}
        else:
            seen = envelopes(head)
            mine = draw.sample(seen, draw.randint(0, len(seen)))
            session = head.partition(b"q-session: ")[2].partition(b"\r\n")[0].decode()
            if mine:
                told = gateway.post("/finish", "\n".join(one["id"] for one in mine).encode(), session=session).json()
                assert told == {"finished": len(mine), "unknown": []}
            done = {one["body"] for one in mine}
            assert not done & acknowledged  # finished by exactly one
            acknowledged |= done
        client.reset()
    done = had if ack == "auto" else acknowledged
    rest: list[str] = []
    wait_until(lambda: broker.depth(topic, "me").in_flight == 0)
    rest = [body.decode() for body in broker.bodies(topic, "me")]
    assert len(rest) == len(set(rest))
    assert done | set(rest) == bodies, "lost"
    if ack == "client":
        assert not acknowledged & set(rest)


@pytest.mark.parametrize("ack", ["auto", "client"])
def test_clients_killed_in_mid_stream(gateway: Gateway, broker: Broker, topic: str, ack: str) -> None:
    chaos(gateway, broker, topic, 4, ack)


@pytest.mark.slow
@pytest.mark.parametrize("ack", ["auto", "client"])
def test_a_hundred_clients_killed_in_mid_stream(gateway: Gateway, broker: Broker, topic: str, ack: str) -> None:
    chaos(gateway, broker, topic, 100, ack)


# ── ack=client ──


def test_client_finishes_requeues_and_touches(gateway: Gateway, broker: Broker, topic: str) -> None:
    fill(broker, topic, 4)
    with gateway.stream(topic, "me", ack="client") as stream:
        ids = {(message := stream.message())["body"]: message["id"] for _ in range(4)}
        told = gateway.post("/finish", ids["000000"].encode(), session=stream.session).json()
        assert told == {"finished": 1, "unknown": []}
        body = json.dumps([ids["000001"], "0123456789abcdef"]).encode()
        told = gateway.post("/finish", body, {"content-type": "application/json"}, session=stream.session).json()
        assert told == {"finished": 1, "unknown": ["0123456789abcdef"]}
        told = gateway.post("/touch", session=stream.session, id=ids["000003"]).json()
        assert told == {"touched": 1, "unknown": []}
        told = gateway.post("/requeue", session=stream.session, id=ids["000002"]).json()
        assert told == {"requeued": 1, "unknown": []}
        again = stream.message()
        assert (again["body"], again["attempts"]) == ("000002", 2)
        assert gateway.post("/finish", ids["000000"].encode(), session=stream.session).json()["finished"] == 0
        assert broker.depth(topic, "me").held == 2
    broker.wait_held(topic, "me", 2)  # they went back with the stream


def test_requeue_with_a_delay(gateway: Gateway, broker: Broker, topic: str) -> None:
    fill(broker, topic, 1)
    with gateway.stream(topic, "me", ack="client") as stream:
        gateway.post("/requeue", session=stream.session, id=stream.message()["id"], delay=60_000)
        wait_until(lambda: broker.depth(topic, "me").deferred == 1)


def test_a_message_that_is_held_too_long_comes_again_and_touch_gives_time(
    gateway: Gateway, broker: Broker, topic: str
) -> None:
    fill(broker, topic, 2)
    with gateway.stream(topic, "me", ack="client", msg_timeout=1000, max_in_flight=2) as stream:
        first, second = stream.message(), stream.message()
        stop = threading.Event()

        def touch() -> None:
            while not stop.wait(0.2):
                gateway.post("/touch", session=stream.session, id=second["id"])

        thread = threading.Thread(target=touch)
        thread.start()
        again = stream.message()
        stop.set()
        thread.join()
        assert (again["body"], again["attempts"]) == (first["body"], 2)
        assert gateway.post("/finish", session=stream.session, id=second["id"]).json()["finished"] == 1


def test_a_stream_that_ended_in_order_may_still_be_acknowledged(gateway: Gateway, broker: Broker, topic: str) -> None:
    fill(broker, topic, 5)
    answer = gateway.get("/sub", topic=topic, channel="me", ack="client", count=3)
    ids = [json.loads(line)["id"] for line in answer.text.splitlines()]
    assert len(ids) == 3
    told = gateway.post("/finish", "\n".join(ids).encode(), session=answer.headers["q-session"]).json()
    assert told == {"finished": 3, "unknown": []}
    broker.wait_held(topic, "me", 2)
    wait_until(lambda: gateway.post("/finish", b"x", session=answer.headers["q-session"]).status_code == 404)


def test_one_message_a_request_does_not_leave_a_broker_connection_behind_with_each(
    make_gateway: MakeGateway, broker: Broker, topic: str
) -> None:
    fill(broker, topic, 300)
    gateway = make_gateway(broker)
    taken: list[tuple[str, str]] = []
    for _ in range(300):
        answer = gateway.get("/sub", topic=topic, channel="me", ack="client", count=1)
        taken.append((answer.headers["q-session"], answer.json()["id"]))
    assert len({ident for _, ident in taken}) == 300
    assert broker.depth(topic, "me").clients == 3  # each may hold 100 messages
    for number, (session, ident) in enumerate(taken):
        word = "requeue" if number % 3 == 0 else "finish"
        assert list(gateway.post(f"/{word}", session=session, id=ident).json().values()) == [1, []]
    broker.wait_held(topic, "me", 100)
    wait_until(lambda: broker.depth(topic, "me").clients == 0)


def test_what_one_of_several_ended_streams_leaves_goes_back_alone(gateway: Gateway, broker: Broker, topic: str) -> None:
    fill(broker, topic, 2)
    query = {"topic": topic, "channel": "me", "ack": "client", "count": 1}
    first = gateway.get("/sub", **query, msg_timeout=1000)
    second = gateway.get("/sub", **query, msg_timeout=60_000)
    assert broker.depth(topic, "me").clients == 1
    wait_until(lambda: broker.depth(topic, "me").in_flight == 1)  # the first's time was up
    assert gateway.post("/finish", session=first.headers["q-session"], id=first.json()["id"]).status_code == 404
    finished = gateway.post("/finish", session=second.headers["q-session"], id=second.json()["id"]).json()
    assert finished == {"finished": 1, "unknown": []}
    assert broker.bodies(topic, "me") == [first.json()["body"].encode()]


def test_sessions_cannot_be_guessed_and_end(gateway: Gateway, broker: Broker, topic: str) -> None:
    fill(broker, topic, 1)
    with gateway.stream(topic, "me", ack="client") as one, gateway.stream(topic, "me", ack="client") as two:
        assert one.session != two.session
        assert len(one.session) >= 32
        session = one.session
    wait_until(lambda: gateway.post("/finish", b"x", session=session).status_code == 404)
    answer = gateway.post("/finish", b"x", session="guessed")
    assert (answer.status_code, answer.json()["message"]) == (404, "SESSION_NOT_FOUND")
    assert "when all its messages are acknowledged, or after msg_timeout" in answer.json()["detail"]
    assert gateway.post("/finish", session=session).json()["message"] == "MISSING_ARG_ID"


def test_a_stopping_gateway_gives_back_what_is_unfinished(
    make_gateway: MakeGateway, broker: Broker, topic: str
) -> None:
    import signal

    fill(broker, topic, 3)
    gateway = make_gateway(broker)
    with gateway.stream(topic, "me", ack="client") as stream:
        gateway.post("/finish", session=stream.session, id=stream.message()["id"])
        gateway.process.signal(signal.SIGTERM)
        assert len(stream.rest()) == 2  # the stream ends as it should
    assert gateway.process.wait().status == 0
    broker.wait_held(topic, "me", 2, 5)


# ── Server-Sent Events that come back ──


def events(data: bytes) -> list[dict[str, Any]]:
    """The whole events in a streamed answer that are messages."""
    parts = unchunked(data).split(b"\n\n")[:-1]
    return [json.loads(part.partition(b"\ndata: ")[2]) for part in parts if part.startswith(b"id: ")]


def test_last_event_id_finishes_what_had_arrived(gateway: Gateway, broker: Broker, topic: str) -> None:
    bodies = fill(broker, topic, 300, size=1000)
    client = Bare(gateway.port, receive_buffer=4096)
    client.get(f"/sub?topic={topic}&channel=me&format=sse")
    data = client.read_until(b"000003")
    wait_until(lambda: broker.depth(topic, "me").in_flight > 100)
    data += client.taken()
    client.reset()
    arrived = events(data)
    assert 3 < len(arrived) < 200
    broker.wait_held(topic, "me", 300 - len(arrived), 10)  # what it had not taken went back
    # A browser may have more than was known to be taken: then those do not come again.
    further = bodies[len(arrived) + 4]
    peek = gateway.broker.reader(topic, "me", ready=300)
    back = peek.take(300 - len(arrived))
    ids = {message.body.decode(): message.id.decode() for message in back}
    peek.ready(0)
    peek.requeue(back)
    broker.wait_held(topic, "me", len(back))
    peek.close()
    stream_name = re.findall(rb"id: \w+:(\S+)\n", data)[0].decode()
    last = f"{ids[further]}:{stream_name}"
    with gateway.stream(topic, "me", format="sse", headers={"last-event-id": last}) as stream:
        came = [json.loads(data)["body"] for data in stream.beginning("data: ", 295 - len(arrived))]
    assert sorted(came) == sorted(bodies[len(arrived) + 5 :])
    broker.wait_held(topic, "me", 0)


def test_an_event_stream_tells_its_session(gateway: Gateway, broker: Broker, topic: str) -> None:
    fill(broker, topic, 1)
    with gateway.stream(topic, "me", format="sse", ack="client") as stream:
        head = [stream.line() for _ in range(5)]
        assert head == ["retry: 1000", "", "event: session", f"data: {stream.session}", ""]
