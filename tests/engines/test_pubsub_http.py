"""q-pubsub-http on an engine that is not NSQ: what the engine can do works, what it cannot do is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from qtools.cli.run import Signals
from qtools.errors import BrokerError, MessageRefused, StartError, TopicMissing, UsageError
from qtools.flow.contract import Refused
from qtools.message import Batch
from qtools.names import Subscription
from qtools.pubsub_http.app import serve, serve_on
from qtools.pubsub_http.options import GatewayOptions
from qtools.sockets import listen
from tests.engines.memory import EVERYTHING, MemoryEngine, MemoryPublisher, MemorySource

EVENTS = Subscription("events", "own")
HERE = {"topic": "events", "channel": "own"}
BODIES = [b"%d" % number for number in range(20)]
DEADLINE = 10.0


@pytest.fixture(params=[False, True], ids=["each message", "cumulative"])
def engine(request: pytest.FixtureRequest) -> MemoryEngine:
    return MemoryEngine(cumulative=request.param)


@asynccontextmanager
async def running(engine: MemoryEngine, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway in this process, and a client of it; the gateway has stopped in order in the end."""
    signals = Signals()
    listening = listen("127.0.0.1:0", "--http-address")
    serving = asyncio.create_task(serve_on(listening, GatewayOptions(engine, **options), signals))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with (
            asyncio.timeout(DEADLINE),
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=DEADLINE) as client,
        ):
            yield client
    finally:
        signals.handle(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            assert await serving == 0
        listening.close()


@contextmanager
def fails_to_read(error: Exception) -> Iterator[None]:
    """Every read of a source raises `error`, also one that has begun."""

    async def read(source: MemorySource) -> Batch | None:
        raise error

    def take(source: MemorySource, subscription: Subscription) -> Batch | None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemorySource, "read", read)
        patch.setattr(MemorySource, "_take", take)
        yield


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - the engine is plain data, which has no event
            await asyncio.sleep(0.005)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


# ── what works ──────────────────────────────────────────────────────────────────────────────────


async def test_publish(engine: MemoryEngine) -> None:
    async with running(engine) as client:
        assert (await client.get("/ping")).text == "OK"
        one = await client.post("/pub", params={"topic": "events"}, content=b"fast path")
        other = await client.post(
            "/pub", params={"topic": "events"}, content=b"keyed", headers={"idempotency-key": "k"}
        )
        again = await client.post(
            "/pub", params={"topic": "events"}, content=b"keyed", headers={"idempotency-key": "k"}
        )
        many = await client.post("/mpub", params={"topic": "events"}, content=b"a\nb\n")
    assert [answer.status_code for answer in (one, other, again, many)] == [200] * 4
    assert many.headers["q-published"] == "2"
    assert engine.bodies("events") == [b"fast path", b"keyed", b"a", b"b"]


async def test_a_message_that_the_engine_refuses(engine: MemoryEngine) -> None:
    async with running(engine) as client:
        assert refusal(await client.post("/pub?topic=events", content=b"x" * 2000)) == (413, "MSG_TOO_BIG")
        answer = await client.post("/mpub?topic=events", content=b"a\n" + b"x" * 2000 + b"\nb")
        assert refusal(answer) == (413, "MSG_TOO_BIG")
        assert answer.json()["published"] == 2
    assert engine.bodies("events") == [b"a", b"b"]


async def test_get_message(engine: MemoryEngine) -> None:
    engine.put("events", [b"one", b"two"])
    async with running(engine) as client:
        for left, body in ((1, b"one"), (0, b"two")):
            answer = await client.get("/message", params=HERE | {"wait": 5})
            assert (answer.status_code, answer.content) == (200, body)
            assert (answer.headers["q-attempts"], len(answer.headers["q-message-id"])) == ("1", 16)
            await until(lambda: engine.left(EVENTS) == left)  # noqa: B023 - it is finished once the client has it
        assert (await client.get("/message", params=HERE)).status_code == 204
    assert engine.left(EVENTS) == 0


@pytest.mark.parametrize("form", ["raw", "envelope", "sse", "length32", "msgpack"])
async def test_stream(engine: MemoryEngine, form: str) -> None:
    engine.put("events", BODIES)
    async with running(engine) as client:
        answer = await client.get("/sub", params=HERE | {"format": form, "until_empty": "true", "max_in_flight": 7})
    assert answer.status_code == 200
    if form == "raw":
        assert answer.content == b"\n".join(BODIES) + b"\n"
    elif form == "envelope":
        assert [json.loads(line)["body"] for line in answer.text.splitlines()] == [body.decode() for body in BODIES]
    else:
        assert all(body in answer.content for body in BODIES)
    assert engine.left(EVENTS) == 0


async def test_a_filter_finishes_what_it_leaves_out(engine: MemoryEngine) -> None:
    engine.put("events", BODIES)
    async with running(engine) as client:
        answer = await client.get("/sub", params=HERE | {"format": "raw", "where": ". >= 17", "until_empty": "true"})
    assert answer.content == b"17\n18\n19\n"
    assert engine.left(EVENTS) == 0


async def test_what_a_stream_has_not_sent_goes_back(engine: MemoryEngine) -> None:
    engine.put("events", BODIES)
    async with running(engine) as client:
        answer = await client.get("/sub", params=HERE | {"format": "raw", "count": 3})
        assert answer.content == b"0\n1\n2\n"
        await until(lambda: engine.channel(EVENTS).in_flight == 0)
    assert engine.left(EVENTS) == len(BODIES) - 3


async def test_subscribers_without_a_channel_share_a_temporary_one(engine: MemoryEngine) -> None:
    engine.put("events", [b"before"])
    engine.channel(EVENTS)
    async with running(engine) as client:
        url = "/sub?topic=events&format=raw&count=1"
        reading = [asyncio.create_task(client.get(url)) for _ in range(3)]
        await until(lambda: len(engine.topic("events").channels) == 2)
        await client.post("/pub?topic=events", content=b"after")
        assert [answer.content for answer in await asyncio.gather(*reading)] == [b"after\n"] * 3
        await until(lambda: list(engine.topic("events").channels) == ["own"])


@pytest.mark.parametrize("error", [BrokerError("E_BAD_TOPIC", "it is gone"), ValueError("a defect")])
async def test_a_read_that_fails_ends_all_streams_of_a_topic_and_the_next_begin_anew(
    engine: MemoryEngine, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine.put("events", [b"before"])
    engine.channel(EVENTS)
    async with running(engine) as client:
        url = "/sub?topic=events&format=raw"
        async with connect(f"{str(client.base_url).replace('http', 'ws')}{url}", proxy=None) as socket:
            reading = [asyncio.create_task(client.get(url)) for _ in range(3)]
            await until(lambda: len(engine.topic("events").channels) == 2)
            await client.post("/pub?topic=events", content=b"after")
            assert await socket.recv() == b"after"
            with fails_to_read(error):
                ended = await asyncio.gather(*reading, return_exceptions=True)
            assert [type(each) for each in ended] == [httpx.RemoteProtocolError] * 3  # not as if it were complete
            with pytest.raises(ConnectionClosedError) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011
        await until(lambda: list(engine.topic("events").channels) == ["own"])
        again = asyncio.create_task(client.get(f"{url}&count=1"))
        await until(lambda: len(engine.topic("events").channels) == 2)
        await client.post("/pub?topic=events", content=b"again")
        assert (await again).content == b"again\n"
    logged = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(logged) == 1
    assert str(error) in logged[0]


@pytest.mark.parametrize("error", [BrokerError("E_BAD_TOPIC", "it is gone"), ValueError("a defect")])
async def test_a_read_that_fails_ends_the_stream_of_a_channel(
    engine: MemoryEngine, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(engine) as client:
        with fails_to_read(error):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/sub", params=HERE)
            answer = await client.get("/message", params=HERE)
        is_ours = isinstance(error, ValueError)
        assert refusal(answer) == ((500, "INTERNAL_ERROR") if is_ours else (502, "BAD_TOPIC"))
    logged = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(logged) == 2
    assert all(text.startswith(("internal error in", "internal error while")) is is_ours for text in logged)


async def test_a_stream_that_cannot_tell_when_its_channel_is_empty_ends(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(source: MemorySource) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(MemorySource, "wait_until_empty", fail)
    async with running(engine) as client:
        assert (await client.get("/sub", params=HERE | {"until_empty": "true"})).status_code == 200
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == [
        "internal error in until_empty, whose stream ended now: ValueError: a defect"
    ]


@pytest.mark.parametrize(("is_too_large", "answer"), [(True, (413, "MSG_TOO_BIG")), (False, (400, "BAD_MESSAGE"))])
async def test_a_refused_message_is_too_large_only_if_that_is_why(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch, is_too_large: bool, answer: tuple[int, str]
) -> None:
    async def publish(publisher: MemoryPublisher, groups: object, *_: object, **__: object) -> Refused:
        return {(0, 0): MessageRefused("the broker says no", is_too_large=is_too_large)}

    monkeypatch.setattr(MemoryPublisher, "publish", publish)
    async with running(engine) as client:
        refused = await client.post("/pub?topic=events", content=b"x")
    assert refusal(refused) == answer
    assert "the broker says no" in refused.json()["detail"]


async def test_a_temporary_channel_never_takes_the_only_messages_of_a_topic(engine: MemoryEngine) -> None:
    engine.put("events", [b"only"])
    async with running(engine) as client:
        assert refusal(await client.get("/sub?topic=events")) == (409, "TOPIC_HAS_NO_CHANNEL")
    assert not engine.topic("events").channels


@pytest.mark.parametrize(
    "path", ["/sub?topic=events&channel=own", "/sub?topic=events", "/message?topic=events&channel=own"]
)
async def test_a_topic_that_does_not_exist(engine: MemoryEngine, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def prepare(source: MemorySource) -> None:
        raise TopicMissing("memory: topic events: there is no such topic on the cluster")

    monkeypatch.setattr(MemorySource, "prepare", prepare)
    async with running(engine) as client:
        answer = await client.get(path)
    assert refusal(answer) == (404, "TOPIC_NOT_FOUND")
    assert answer.json()["detail"] == "memory: topic events: there is no such topic on the cluster"


@pytest.mark.parametrize("kind", ["topic", "channel"])
async def test_names_that_the_engine_does_not_accept(kind: str) -> None:
    for longest, status in ((64, 400), (249, 200)):
        engine = MemoryEngine(EVERYTHING._replace(longest_name=longest, reserved_names=("..",)))
        async with running(engine) as client:
            name = {kind: "n" * 65, "until_empty": "true"}
            answer = await client.get("/sub", params=HERE | name)
            assert answer.status_code == status
            if status == 400:
                assert refusal(answer) == (400, f"INVALID_{kind.upper()}")
                assert "has 65 characters, Memory accepts 64" in answer.json()["detail"]
            reserved = await client.get("/sub", params=HERE | {kind: ".."})
            assert refusal(reserved) == (400, f"INVALID_{kind.upper()}")
            if kind == "topic":
                assert (await client.post("/pub?topic=" + "n" * 65, content=b"x")).status_code == status
                assert engine.bodies("n" * 65) == ([b"x"] if status == 200 else [])


async def test_acknowledgements_of_a_client(engine: MemoryEngine) -> None:
    engine.put("events", BODIES[:4])
    async with (
        running(engine) as client,
        client.stream("GET", "/sub", params=HERE | {"ack": "client"}) as answer,
    ):
        lines = answer.aiter_lines()
        ids = [json.loads(await anext(lines))["id"] for _ in range(4)]
        session = {"session": answer.headers["q-session"]}
        touched = await client.post("/touch", params=session, content=ids[0])
        assert touched.json() == {"touched": 1, "unknown": []}
        # Finished out of order: a cumulative engine commits nothing yet.
        finished = await client.post("/finish", params=session, json=[ids[3], "f" * 16])
        assert finished.json() == {"finished": 1, "unknown": ["f" * 16]}
        assert engine.left(EVENTS) == (4 if engine.cumulative else 3)
        requeued = await client.post("/requeue", params=session, content=ids[1])
        assert requeued.json() == {"requeued": 1, "unknown": []}
        again = json.loads(await anext(lines))
        assert (again["id"], again["attempts"]) == (ids[1], 2)
        finished = await client.post("/finish", params=session, content="\n".join(ids[:3]))
        assert finished.json() == {"finished": 3, "unknown": []}
        assert engine.left(EVENTS) == 0


async def test_what_a_client_leaves_unfinished_goes_back(engine: MemoryEngine) -> None:
    engine.put("events", BODIES[:4])
    async with running(engine) as client:
        async with client.stream("GET", "/sub", params=HERE | {"ack": "client"}) as answer:
            lines = answer.aiter_lines()
            ids = [json.loads(await anext(lines))["id"] for _ in range(4)]
            await client.post("/finish", params={"session": answer.headers["q-session"]}, content=ids[0])
        await until(lambda: engine.channel(EVENTS).in_flight == 0)
        assert engine.left(EVENTS) == 3
        answer = await client.get("/sub", params=HERE | {"format": "raw", "count": 3})
        assert answer.content == b"1\n2\n3\n"


async def test_an_event_stream_that_comes_back(engine: MemoryEngine) -> None:
    engine.put("events", BODIES[:3])
    async with running(engine) as client:
        async with client.stream("GET", "/sub", params=HERE | {"format": "sse", "max_in_flight": 1}) as answer:
            events = (line async for line in answer.aiter_lines() if line.startswith("id: "))
            last = (await anext(events)).removeprefix("id: ")
        await until(lambda: engine.channel(EVENTS).in_flight == 0)
        answer = await client.get(
            "/sub", params=HERE | {"format": "sse", "until_empty": "true"}, headers={"last-event-id": last}
        )
    assert b'"body":"0"' not in answer.content
    assert b'"body":"1"' in answer.content
    assert b'"body":"2"' in answer.content
    assert engine.left(EVENTS) == 0


async def test_websocket(engine: MemoryEngine) -> None:
    engine.put("events", BODIES[:4])
    async with running(engine) as client:
        url = f"{str(client.base_url).replace('http', 'ws')}/sub?topic=events&channel=own&ack=client"
        async with connect(url, compression=None, proxy=None) as socket:
            ids = [json.loads(await socket.recv())["id"] for _ in range(4)]
            for command, result in (
                ({"touch": ids[:1]}, {"touch": 1, "unknown": []}),
                ({"finish": [*ids[:2], "unknown"]}, {"finish": 2, "unknown": ["unknown"]}),
                ({"requeue": ids[2:3], "delay": 5}, {"requeue": 1, "unknown": []}),
            ):
                await socket.send(json.dumps(command))
                assert json.loads(await socket.recv()) == result
            again = json.loads(await socket.recv())
            assert (again["id"], again["attempts"]) == (ids[2], 2)
        await until(lambda: engine.channel(EVENTS).in_flight == 0)
    assert engine.left(EVENTS) == 2


async def test_the_topics_of_the_page(engine: MemoryEngine) -> None:
    engine.put("events", BODIES)
    engine.channel(EVENTS).paused = True
    engine.put("letters", [b"x"])
    async with running(engine) as client:
        answer = (await client.get("/topics")).json()
        events, letters = answer["topics"]
        assert answer["engine"] == {"name": "Memory", "capabilities": engine.capabilities.names()}
        assert (await client.get("/")).headers["content-type"].startswith("text/html")
    assert (events["topic"], events["messages"]) == ("events", 20)
    (channel,) = events["channels"]
    assert (channel["channel"], channel["depth"], channel["paused"]) == ("own", 20, True)
    assert (letters["topic"], letters["depth"], letters["channels"]) == ("letters", 1, [])


async def test_an_engine_that_is_away(engine: MemoryEngine) -> None:
    engine.is_down = True
    with pytest.raises(StartError, match="nothing listens there"):
        await serve(GatewayOptions(engine, http_address="127.0.0.1:0"), Signals())


# ── what the engine cannot do ───────────────────────────────────────────────────────────────────

REFUSED: list[tuple[str, str, str, str]] = [
    ("deferred_publishing", "POST", "/pub?topic=events&defer=5", "defer: Memory cannot hold messages back: leave"),
    ("temporary_channels", "GET", "/sub?topic=events", "channel: Memory has no temporary channels: name a channel"),
    ("temporary_channels", "GET", "/sub?topic=events&channel=a%23ephemeral", "channel: Memory has no temporary"),
    ("temporary_channels", "GET", "/sub?topic=events&ack=client", "channel: Memory has no temporary"),
    ("temporary_channels", "GET", "/message?topic=events&channel=a%23ephemeral", "channel: Memory has no temporary"),
    ("depths", "GET", "/sub?topic=events&channel=own&until_empty=1", "until_empty: Memory does not tell how much"),
    ("depths", "GET", "/topics", "/topics: Memory does not tell how much is left"),
    ("requeue_delay", "POST", "/requeue?session=x&id=y&delay=5", "delay: Memory delivers a requeued message at once"),
    ("touch", "POST", "/touch?session=x&id=y", "/touch: Memory cannot extend the time of a message"),
    (
        "touch",
        "GET",
        "/sub?topic=events&channel=own&ack=client&msg_timeout=60001",
        "msg_timeout: Memory cannot extend the time of a message, and the broker waits 60 s: give at most that",
    ),
]


@pytest.mark.parametrize(("capability", "method", "target", "detail"), REFUSED)
async def test_a_request_for_what_the_engine_cannot_do_is_answered_501(
    engine: MemoryEngine, capability: str, method: str, target: str, detail: str
) -> None:
    engine.capabilities = EVERYTHING._replace(**{capability: False})  # type: ignore[arg-type]
    engine.put("events", BODIES)
    async with running(engine) as client:
        answer = await client.request(method, target, content=b"x" if method == "POST" else b"")
    assert refusal(answer) == (501, "NOT_SUPPORTED")
    assert answer.json()["detail"].startswith(detail)
    assert engine.bodies("events") == BODIES
    assert "own" not in engine.topic("events").channels or engine.left(EVENTS) == len(BODIES)


async def test_the_rest_works_without_any_capability(engine: MemoryEngine) -> None:
    engine.capabilities = type(EVERYTHING)(engine="Memory", broker="memory")
    engine.put("events", BODIES[:3])
    async with running(engine) as client:
        for target in ("/pub?topic=events&defer=0", "/pub?topic=events"):
            assert (await client.post(target, content=b"3")).status_code == 200
        assert (await client.get("/message", params=HERE)).content == b"0"
        await until(lambda: engine.left(EVENTS) == 4)
        async with client.stream("GET", "/sub", params=HERE | {"ack": "client", "count": 4}) as answer:
            lines = answer.aiter_lines()
            ids = [json.loads(await anext(lines))["id"] for _ in range(4)]
            session = {"session": answer.headers["q-session"]}
            requeued = await client.post("/requeue", params=session | {"delay": 0}, content=ids[0])
            assert requeued.json() == {"requeued": 1, "unknown": []}
            finished = await client.post("/finish", params=session, json=ids[1:])
            assert finished.json() == {"finished": 3, "unknown": []}
    assert engine.left(EVENTS) == (4 if engine.cumulative else 1)  # what comes first is not finished


@pytest.mark.parametrize(
    ("capability", "command"), [("touch", {"touch": []}), ("requeue_delay", {"requeue": [], "delay": 5})]
)
async def test_a_command_for_what_the_engine_cannot_do_is_refused(capability: str, command: dict[str, Any]) -> None:
    engine = MemoryEngine(EVERYTHING._replace(**{capability: False}))  # type: ignore[arg-type]
    engine.put("events", BODIES[:1])
    async with running(engine) as client:
        url = f"{str(client.base_url).replace('http', 'ws')}/sub?topic=events&channel=own&ack=client"
        async with connect(url, compression=None, proxy=None) as socket:
            ident = json.loads(await socket.recv())["id"]
            word = next(iter(command))
            await socket.send(json.dumps(command | {word: [ident]}))
            assert json.loads(await socket.recv())["error"].startswith(
                f"{capability.partition('_')[2] or word}: Memory "
            )
            await socket.send(json.dumps({"finish": [ident]}))
            assert json.loads(await socket.recv()) == {"finish": 1, "unknown": []}


async def test_a_flag_that_needs_what_the_engine_cannot_do_is_refused_at_the_start() -> None:
    engine = MemoryEngine(EVERYTHING._replace(temporary_channels=False))
    with pytest.raises(UsageError, match="--backlog: Memory has no temporary channels"):
        await serve(GatewayOptions(engine, http_address="127.0.0.1:0", backlog=5), Signals())


async def test_the_document_of_an_engine_with_long_names() -> None:
    able = MemoryEngine()
    able.capabilities = able.capabilities._replace(longest_name=249)
    async with running(able) as client:
        told = (await client.get("/openapi.json")).json()
        for length, status in ((249, 200), (250, 400)):
            answer = await client.post("/pub", params={"topic": "n" * length}, content=b"x")
            assert answer.status_code == status
    (topic,) = [each for each in told["paths"]["/pub"]["post"]["parameters"] if each["name"] == "topic"]
    assert topic["schema"]["maxLength"] == 249
