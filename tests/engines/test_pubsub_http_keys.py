"""q-pubsub-http with keys, headers, empty messages and tombstones: published as sent by an engine that has them, and
refused, or left out with a warning, for one that has not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgpack
import pytest

from qtools.attributes import TOMBSTONE, Attributes, Headers
from qtools.engines.capabilities import Capabilities
from qtools.names import Subscription
from tests.engines.memory import MemoryEngine
from tests.engines.test_envelopes import BODIES, KEYED, engine_with, read
from tests.engines.test_pubsub_http import refusal, running

HERE = {"topic": "events", "channel": "own"}
EVENTS = Subscription("events", "own")
NOTHING = Capabilities(engine="NSQ", broker="nsqd")
EXPECTED = [  # headers of one name follow each other in an envelope
    (b"k1", [("a", b"1"), ("a", b"\xfe"), ("b", None)], b"text", False),
    *read(engine_with(BODIES, KEYED), "events")[1:],
]


async def in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


# ── /mpub ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1, 50], ids=["whole", "byte by byte", "in pieces"])
@pytest.mark.parametrize("form", ["envelope", "msgpack"])
async def test_what_sub_gives_is_published_by_mpub_byte_for_byte(form: str, size: int) -> None:
    engine = engine_with(BODIES, KEYED)
    async with running(engine) as client:
        written = await client.get("/sub", params=HERE | {"format": form, "until_empty": "true"})
        body = in_pieces(written.content, size) if size else written.content
        answer = await client.post("/mpub", params={"topic": "copy", "format": form}, content=body)
    assert (answer.status_code, answer.headers["q-published"]) == (200, "4")
    assert "q-warning" not in answer.headers
    assert read(engine, "copy") == EXPECTED


async def test_length32_keeps_empty_bodies() -> None:
    engine = engine_with([b"a", b"", b"b"], Attributes())
    async with running(engine) as client:
        written = await client.get("/sub", params=HERE | {"format": "length32", "until_empty": "true"})
        answer = await client.post("/mpub", params={"topic": "copy", "format": "length32"}, content=written.content)
    assert answer.headers["q-published"] == "3"
    assert engine.bodies("copy") == [b"a", b"", b"b"]


async def test_requests_with_and_without_keys_share_a_publish() -> None:
    engine = MemoryEngine()
    async with running(engine) as client:
        answers = await asyncio.gather(
            *(
                client.post("/pub", params={"topic": "events"} | ({"key": f"k{n}"} if n % 2 else {}), content=b"%d" % n)
                for n in range(20)
            ),
            *(client.post("/mpub", params={"topic": "events"}, content=b"plain\nlines") for _ in range(3)),
        )
    assert {answer.status_code for answer in answers} == {200}
    found = {body: key for key, _, body, _ in read(engine, "events")}
    assert found == {b"%d" % n: b"k%d" % n if n % 2 else None for n in range(20)} | {b"plain": None, b"lines": None}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"body": "x", "key": 5}, 'line 2 (at byte 13) has a "key" that is not a string'),
        ({"body": "x", "key_base64": "*"}, "line 2 (at byte 13) has a key_base64 that is not base64"),
        ({"body": "x", "headers": []}, 'line 2 (at byte 13) has "headers" that are not an object'),
    ],
)
async def test_an_envelope_whose_key_or_headers_cannot_be_read(line: dict[str, Any], why: str) -> None:
    engine = MemoryEngine()
    async with running(engine) as client:
        body = b'{"body":"a"}\n' + json.dumps(line).encode()
        answer = await client.post("/mpub", params={"topic": "events", "format": "envelope"}, content=body)
    assert refusal(answer) == (400, "BAD_MESSAGE")
    assert answer.json()["detail"].startswith(why)
    assert engine.bodies("events") == []


def bodies_in(form: str, *bodies: bytes | None) -> bytes:
    if form == "length32":
        return b"".join(len(body or b"").to_bytes(4) + (body or b"") for body in bodies)
    if form == "msgpack":
        return b"".join(msgpack.packb({"body": body}) for body in bodies)
    return b"".join(json.dumps({"body": None if body is None else body.decode()}).encode() + b"\n" for body in bodies)


@pytest.mark.parametrize("as_it_comes", [False, True])
@pytest.mark.parametrize(
    ("form", "body", "what"),
    [
        ("envelope", None, "message 2 has no body (it is a tombstone), and NSQ has no tombstones"),
        ("envelope", b"", "message 2 is empty, and NSQ has no empty messages"),
        ("msgpack", None, "message 2 has no body (it is a tombstone), and NSQ has no tombstones"),
        ("msgpack", b"", "message 2 is empty, and NSQ has no empty messages"),
        ("length32", b"", "message 2 is empty, and NSQ has no empty messages"),
    ],
)
async def test_an_engine_without_empty_messages_refuses_them(
    form: str, body: bytes | None, what: str, as_it_comes: bool
) -> None:
    engine = MemoryEngine(NOTHING)
    async with running(engine) as client:
        sent = bodies_in(form, b"one", body, b"three")
        answer = await client.post(
            "/mpub", params={"topic": "events", "format": form}, content=in_pieces(sent, 1) if as_it_comes else sent
        )
    assert refusal(answer) == (400, "MSG_EMPTY")
    assert answer.json()["detail"] == what
    # A body that is read whole is published whole or not at all; of any other, what came before is published.
    assert engine.bodies("events") == ([b"one"] if as_it_comes else [])
    assert answer.json().get("published") == (1 if as_it_comes else None)


@pytest.mark.parametrize("as_it_comes", [False, True])
@pytest.mark.parametrize("form", ["envelope", "msgpack"])
async def test_an_engine_without_keys_and_headers_leaves_them_out_and_says_so(form: str, as_it_comes: bool) -> None:
    source, there = engine_with(BODIES[:2], KEYED.pick([0, 1])), MemoryEngine(NOTHING)
    async with running(source) as client:
        written = await client.get("/sub", params=HERE | {"format": form, "until_empty": "true"})
    async with running(there) as client:
        body = in_pieces(written.content, 20) if as_it_comes else written.content
        answer = await client.post("/mpub", params={"topic": "copy", "format": form}, content=body)
        plain = await client.post(
            "/mpub", params={"topic": "copy", "format": form}, content=bodies_in(form, b"no key here")
        )
    assert (answer.status_code, answer.headers["q-published"]) == (200, "2")
    assert answer.headers["q-warning"] == "NSQ has no keys and no headers: those of the envelopes are left out"
    assert "q-warning" not in plain.headers
    assert there.bodies("copy") == [*BODIES[:2], b"no key here"]


async def test_memory_of_a_stream_counts_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of tombstones has no bodies: while the broker does not answer, its keys bound what is read."""
    engine, asked = MemoryEngine(), 0
    may_publish = asyncio.Event()
    publisher = type(engine.publisher())
    original = publisher.publish

    async def publish(*arguments: Any, **more: Any) -> Any:
        await may_publish.wait()
        return await original(*arguments, **more)

    async def tombstones() -> AsyncIterator[bytes]:
        nonlocal asked
        for _ in range(500):
            asked += 1
            yield json.dumps({"body": None, "key": "k" * 65_000}).encode() + b"\n"

    monkeypatch.setattr(publisher, "publish", publish)
    async with running(engine) as client:
        posting = asyncio.create_task(
            client.post("/mpub", params={"topic": "events", "format": "envelope"}, content=tombstones())
        )
        before = -1
        while before != asked:  # until no more is read of it
            before = asked
            await asyncio.sleep(0.3)
        assert asked < 300
        may_publish.set()
        assert (await posting).headers["q-published"] == "500"
    assert len(engine.bodies("events")) == 500


# ── in the query ────────────────────────────────────────────────────────────────────────────────

GIVEN: list[tuple[list[tuple[str, str]], bytes | None, list[tuple[str, bytes]]]] = [
    ([("key", "k 1")], b"k 1", []),
    ([("key", "ключ")], "ключ".encode(), []),
    ([("key_base64", "/wA=")], b"\xff\x00", []),
    ([("key_base64", "_wA=")], b"\xff\x00", []),
    ([("key_base64", "")], b"", []),
    ([("header", "a:1"), ("header", "a:x:y")], None, [("a", b"1"), ("a", b"x:y")]),
    ([("header", "Ü: ü")], None, [("Ü", " ü".encode())]),
    ([("key", "k"), ("header", "empty:")], b"k", [("empty", b"")]),
]  # fmt: skip


@pytest.mark.parametrize(("query", "key", "headers"), GIVEN)
async def test_key_and_headers_in_the_query(
    query: list[tuple[str, str]], key: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    engine = MemoryEngine()
    async with running(engine) as client:
        pairs = [("topic", "events"), *query]
        for path, body in (("/pub", b"one"), ("/mpub", b"two\nthree")):
            assert (await client.post(path, params=httpx.QueryParams(pairs), content=body)).status_code == 200
        late = await client.post("/pub", params=httpx.QueryParams([*pairs, ("defer", "10")]), content=b"four")
        assert late.status_code == 200
        async with asyncio.timeout(5):
            while len(engine.bodies("events")) < 4:
                await engine.changed.wait()
    assert read(engine, "events") == [(key, headers, body, False) for body in (b"one", b"two", b"three", b"four")]


async def test_those_of_the_query_replace_those_of_envelopes() -> None:
    engine = MemoryEngine()
    lines = b'{"body":"a","key":"old","headers":{"x":"1","y":"2"}}\n{"body":null,"key":"old"}\n'
    async with running(engine) as client:
        query = httpx.QueryParams([("topic", "t"), ("format", "envelope"), ("header", "x:new")])
        assert (await client.post("/mpub", params=query, content=lines)).status_code == 200
        assert (await client.post("/mpub", params=query.set("key", "new"), content=lines)).status_code == 200
    first = [("y", b"2"), ("x", b"new")]
    assert read(engine, "t") == [
        (b"old", first, b"a", False), (b"old", [("x", b"new")], b"", True),
        (b"new", first, b"a", False), (b"new", [("x", b"new")], b"", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "word", "detail"),
    [
        ("key=", "INVALID_ARG_KEY", "key has 1 to 4096 characters"),
        ("key=" + "k" * 4097, "INVALID_ARG_KEY", "key has 1 to 4096 characters"),
        ("key=a&key=b", "INVALID_ARG_KEY", "key is given more than once"),
        ("key=%ff", "INVALID_REQUEST", "the query is not UTF-8"),
        ("key_base64=a", "INVALID_ARG_KEY_BASE64", "key_base64 is base64 of at most 4096 characters; write"),
        ("key_base64=a+b=", "INVALID_ARG_KEY_BASE64", "key_base64 is base64"),
        ("key=a&key_base64=YQ==", "INVALID_ARG_KEY_BASE64", "give key or key_base64, not both"),
        ("header=x", "INVALID_ARG_HEADER", "header is NAME:VALUE"),
        ("header=:x", "INVALID_ARG_HEADER", "header is NAME:VALUE"),
        ("header=a%0ab:x", "INVALID_ARG_HEADER", "header is NAME:VALUE"),
        ("header=" + "n" * 256 + ":x", "INVALID_ARG_HEADER", "header is NAME:VALUE"),
        ("header=n:" + "x" * 4096, "INVALID_ARG_HEADER", "header is NAME:VALUE"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/pub", "/mpub"])
async def test_a_key_or_a_header_that_is_not_valid(path: str, query: str, word: str, detail: str) -> None:
    engine = MemoryEngine()
    async with running(engine) as client:
        answer = await client.post(f"{path}?topic=events&{query}", content=b"x")
    assert refusal(answer) == (400, word)
    assert answer.json()["detail"].startswith(detail)
    assert engine.bodies("events") == []


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("/pub?topic=events&key=k", "key: NSQ has no keys and no headers: leave it out"),
        ("/pub?topic=events&key_base64=", "key_base64: NSQ has no keys and no headers: leave it out"),
        ("/mpub?topic=events&key=k", "key: NSQ has no keys and no headers: leave it out"),
        ("/mpub?topic=events&header=a:b", "header: NSQ has no keys and no headers: leave it out"),
        ("/pub?topic=events&tombstone=true", "tombstone: NSQ has no tombstones: leave it out"),
    ],
)
async def test_an_engine_that_has_none_refuses_them(target: str, detail: str) -> None:
    engine = MemoryEngine(NOTHING)
    async with running(engine) as client:
        answer = await client.post(target, content=b"x")
    assert refusal(answer) == (501, "NOT_SUPPORTED")
    assert answer.json()["detail"] == detail
    assert engine.bodies("events") == []


async def test_empty_messages_and_tombstones() -> None:
    engine, plain = MemoryEngine(), MemoryEngine(NOTHING)
    async with running(engine) as client:
        for query in ("", "&key=k", "&key=k&tombstone=true", "&tombstone=true&defer=1"):
            assert (await client.post(f"/pub?topic=events{query}")).status_code == 200
        refused = await client.post("/pub?topic=events&tombstone=true", content=b"x")
        async with asyncio.timeout(5):
            while len(engine.bodies("events")) < 4:
                await engine.changed.wait()
    assert refusal(refused) == (400, "INVALID_ARG_TOMBSTONE")
    assert read(engine, "events") == [
        (None, [], b"", False), (b"k", [], b"", False), (b"k", [], b"", True), (None, [], b"", True),
    ]  # fmt: skip
    async with running(plain) as client:
        answer = await client.post("/pub?topic=events")
    assert refusal(answer) == (400, "MSG_EMPTY")
    assert answer.json()["detail"] == "NSQ has no empty messages: a message has at least one byte"


# ── GET /message ────────────────────────────────────────────────────────────────────────────────

NAMES = ("q-key", "q-key-base64", "q-headers", "q-partition", "q-offset", "q-tombstone", "q-warning")


@pytest.mark.parametrize(
    ("body", "key", "headers", "expected"),
    [
        (b"x", None, (), {}),
        (b"x", b"user 17", (), {"q-key": "user 17"}),
        (b"x", b"", (), {"q-key": ""}),
        (b"x", b" padded", (), {"q-key-base64": "IHBhZGRlZA=="}),
        (b"x", b"a\r\nset-cookie: b", (), {"q-key-base64": "YQ0Kc2V0LWNvb2tpZTogYg=="}),
        (b"x", "ключ".encode(), (), {"q-key-base64": "0LrQu9GO0Yc="}),
        (
            b"x", None, [("a", b"1"), ("Ü\r\n", b"\xff"), ("a", None)],
            {"q-headers": r'{"a":["1",null],"\u00dc\r\n":{"base64":"/w=="}}'},
        ),
        (b"", b"k", (), {"q-key": "k"}),
        (TOMBSTONE, b"k", (), {"q-key": "k", "q-tombstone": "true"}),
        (b"x", b"k" * 8193, (), {"q-warning": "Q-Key would have 8193 bytes and is left out: use /sub"}),
    ],
)  # fmt: skip
async def test_what_a_message_has_is_in_headers_of_the_response(
    body: bytes, key: bytes | None, headers: Headers, expected: dict[str, str]
) -> None:
    engine = MemoryEngine()
    engine.put("events", [b"before"])
    engine.channel(EVENTS).waiting.clear()
    engine.channel(EVENTS).committed = 1
    engine.put("events", [body], Attributes([key], [headers]))
    async with running(engine) as client:
        answer = await client.get("/message", params=HERE | {"wait": 5})
    assert (answer.status_code, answer.content) == (200, body)
    found = {name: answer.headers[name] for name in NAMES if name in answer.headers}
    assert found == {"q-partition": "0", "q-offset": "1"} | expected


async def test_a_message_of_an_engine_without_keys_has_none_of_these_headers() -> None:
    engine = MemoryEngine(NOTHING)
    engine.put("events", [b"x"])
    async with running(engine) as client:
        answer = await client.get("/message", params=HERE | {"wait": 5})
    assert answer.content == b"x"
    assert not set(NAMES) & set(answer.headers)
