"""Batches decoded with a registry: which schema, how often it is asked, and what happens when it cannot answer."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import AsyncIterator, Container, Sequence
from typing import Any

import pytest
from harness.certificates import Certificates
from harness.registry import Answer, Registry

from qtools.attributes import TOMBSTONE, Attributes, DecodedBody, UndecodableBody
from qtools.errors import QtoolsError, StartError, UsageError
from qtools.expressions.expression import compile_expression
from qtools.flow.filter import Filter
from qtools.message import Batch, Message, Messages
from qtools.schemas import codecs, decoding
from qtools.schemas import registry as client
from qtools.schemas.contract import SchemaText
from qtools.schemas.decoding import BatchDecoder, DecodingSource, FileDecoder, RegistryDecoder, SchemaCache
from qtools.schemas.registry import registry_settings
from tests.flow.memory import Feed, Ledger

EVENT = {"type": "record", "name": "Event", "namespace": "x", "fields": [{"name": "id", "type": "long"}]}


def framed(number: int, body: bytes) -> bytes:
    return b"\0" + struct.pack(">I", number) + body


def decoder_for(registry: Registry, **settings: Any) -> RegistryDecoder:
    return RegistryDecoder(SchemaCache(client.Registry(registry_settings(registry.url, **settings)), "AVRO"))


@pytest.fixture
async def decoder(registry: Registry) -> AsyncIterator[RegistryDecoder]:
    made = decoder_for(registry)
    await made.start()
    yield made
    await made.close()


def values(bodies: list[bytes]) -> list[Any]:
    """The value of each body, or why it has none."""
    found = []
    for body in bodies:
        assert isinstance(body, (DecodedBody, UndecodableBody))
        found.append(body.value if isinstance(body, DecodedBody) else body.reason)
    return found


# ── which schema ──


async def test_each_body_has_the_schema_that_it_names(registry: Registry, decoder: RegistryDecoder) -> None:
    one, other = registry.add(EVENT), registry.add('"string"')
    bodies = [
        framed(one, b"\x02"),
        framed(other, b"\x02a"),
        framed(one, b"\x04"),
        b"{}",
        b"",
        b"\0\0",
        framed(one, b""),
    ]
    decoded = await decoder.decode(bodies, None)
    assert decoded == bodies
    assert values(decoded) == [
        {"id": 1},
        "a",
        {"id": 2},
        "it has only 2 bytes: no magic byte and id of a schema",
        "it is empty, and names no schema",
        "it has only 2 bytes: no magic byte and id of a schema",
        "it is not Avro of schema 1 (x.Event): it ends too early",
    ]
    assert values(await decoder.decode([b'{"id": 1}'], None)) == [
        "it begins with the byte 0x7b, not with the magic byte 0x00 and the id of a schema"
    ]
    assert registry.asked == {"/schemas/types": 1, "/schemas/ids/1": 1, "/schemas/ids/2": 1}


async def test_a_header_counts_before_the_body(registry: Registry, decoder: RegistryDecoder) -> None:
    number = registry.add('"string"')
    guid = b"\1" + registry.guid_of(number).bytes
    header = ("__value_schema_id", guid)
    bodies = [b"\x02a", framed(number, b"\x02b"), b"\x02c", TOMBSTONE, b"\x00"]
    headers = [
        [("n", b""), header], (), [("__value_schema_id", b"\0" + number.to_bytes(4, "big"))], [header],
        [("__value_schema_id", b"?")],
    ]  # fmt: skip
    decoded = await decoder.decode(bodies, headers)
    assert decoded[3] is TOMBSTONE
    assert values(decoded[:3] + decoded[4:]) == [
        "a", "b", "c", "its header __value_schema_id holds neither a GUID nor an id of a schema",
    ]  # fmt: skip
    assert registry.asked[f"/schemas/guids/{registry.guid_of(number)}"] == 1


async def test_references_are_followed(registry: Registry, decoder: RegistryDecoder) -> None:
    registry.add({"type": "enum", "name": "x.Kind", "symbols": ["A", "B"]}, subject="kinds")
    order = {"type": "record", "name": "x.Order", "fields": [{"name": "kind", "type": "x.Kind"}]}
    registry.add(order, subject="orders/all", references=[("x.Kind", "kinds", 1)])
    both = [("x.Order", "orders/all", 1), ("x.Kind", "kinds", 1)]
    number = registry.add({"type": "array", "items": "x.Order"}, references=both)
    assert values(await decoder.decode([framed(number, b"\x02\x02\x00")], None)) == [[{"kind": "B"}]]
    assert registry.asked["/subjects/kinds/versions/1"] == 1


@pytest.mark.parametrize(
    ("references", "why"),
    [
        ([("x", "nowhere", 1)], "the schema registry has no version 1 of 'nowhere', a reference"),
        ([("x", "circle", 1)], "a schema refers to itself, through version 1 of 'circle'"),
    ],
)
async def test_references_that_lead_nowhere(
    references: list[tuple[str, str, int]], why: str, registry: Registry, decoder: RegistryDecoder
) -> None:
    registry.add('"int"', subject="circle", references=[("x", "circle", 1)])
    number = registry.add('"string"', references=references)
    assert values(await decoder.decode([framed(number, b"")], None)) == [why]


async def test_a_schema_that_cannot_be_used_is_a_reason(registry: Registry, decoder: RegistryDecoder) -> None:
    numbers = [
        registry.add('"nix"'),
        registry.add('syntax = "proto3";', kind="PROTOBUF"),
        registry.add("?", kind="NEW"),
    ]
    assert values(await decoder.decode([framed(each, b"") for each in numbers], None)) == [
        "schema 1 cannot be used: the type 'nix' is not defined",
        "schema 2 is PROTOBUF, not AVRO: it needs protobuf",
        "schema 3 is NEW, not AVRO: it cannot be decoded",
    ]


# ── how often the registry is asked ──


async def test_an_unknown_schema_is_asked_for_once(
    registry: Registry, decoder: RegistryDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [framed(2**32 - 1, b"x")] * 50
    for _ in range(20):
        why = values(await decoder.decode(bodies, None))
    assert why == ["the schema registry does not know schema 4294967295"] * 50
    assert registry.asked["/schemas/ids/4294967295"] == 1
    monkeypatch.setattr(decoding, "UNKNOWN_SECONDS", 0.0)  # from now on it is asked for again
    await decoder.decode([framed(7, b"")], None)
    registry.add('"string"', number=7)
    assert values(await decoder.decode([framed(7, b"\x02a")], None)) == ["a"]


async def test_what_is_remembered_is_bounded(
    registry: Registry, decoder: RegistryDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MOST_UNKNOWN", 3)
    monkeypatch.setattr(decoding, "MOST_SCHEMAS", 3)
    for number in range(1, 6):
        registry.add('"string"', number=number)
        await decoder.decode([framed(number, b""), framed(number + 100, b"")], None)
    cache = decoder._cache
    assert [each.number for each in cache._codecs] == [3, 4, 5]
    assert [each.number for each in cache._unknown] == [103, 104, 105]
    assert values(await decoder.decode([framed(1, b"\x02a")], None)) == ["a"]


# ── a registry that does not answer as it should ──


def answering(first: Answer, times: int) -> Any:
    left = [times]

    def behave(path: str) -> Answer | None:
        if not path.startswith("/schemas/ids/") or not left[0]:
            return None
        left[0] -= 1
        return first

    return behave


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(500), "/schemas/ids/1 answers 500"),
        (Answer(503, b"<html>"), "/schemas/ids/1 answers 503"),
        (Answer(429), "/schemas/ids/1 answers 429"),
    ],
)
async def test_a_registry_that_is_away_stops_the_reading_with_one_line(
    answer: Answer,
    why: str,
    registry: Registry,
    decoder: RegistryDecoder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "next_delay", lambda failures: 0.001)
    number = registry.add('"string"')
    registry.behaviour = answering(answer, 5)
    with caplog.at_level(logging.INFO, "qtools.schemas"):
        assert values(await decoder.decode([framed(number, b"\x02a")], None)) == ["a"]
    first, last = [record.getMessage() for record in caplog.records]
    assert first == f"{registry.url}: {why}; nothing is read until the schema registry answers, trying again" or (
        why in first
    )
    assert last.startswith("the schema registry answers again, after")
    assert registry.asked["/schemas/ids/1"] == 6


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"<html>", "answers 200 and no JSON"),
        (b"", "answers 200 and no JSON"),
        (b"[]", "answers 200 and no schema"),
        (b'{"schema": 5}', "answers 200 and no schema"),
        (b'{"schema": "1", "schemaType": {"a": 1}}', "answers 200 and a schemaType that is no text"),
        (b'{"schema": "1", "references": 5}', "answers 200 and references that are no list"),
        (b'{"schema": "1", "references": {"a": 1}}', "answers 200 and references that are no list"),
        (b'{"schema": "1", "references": [1]}', "answers 200 and references without a subject"),
        (b'{"schema": "1", "references": [{"name": "n", "subject": "s"}]}', "answers 200 and a reference without a v"),
        (b'{"schema": "1", "references": [{"name": "n", "subject": 5, "version": 1}]}', "references without a subject"),
        (
            b'{"schema": "1", "references": [{"name": "n", "subject": "%s", "version": 1}]}' % (b"x" * 70_000),
            "answers 200 and a reference with a subject of 70,000 characters",
        ),
        (
            b'{"schema": "1", "references": [{"name": "n", "subject": "\\u0000\\n/../%%", "version": 1}]}',
            r"the schema registry has no version 1 of '\x00\n/../%%', a reference",
        ),
        (b'{"schema": "1", "schemaType": "X\\u001b[31m\\nY"}', "schema 1 is X [31m Y, not AVRO: it cannot be decoded"),
        (
            rb'{"schema": "{\"type\":\"record\",\"name\":\"a\\u001b[31m\\nb\",\"fields\":[]}"}',
            "schema 1",
        ),
    ],
)
async def test_an_answer_that_cannot_be_used_concerns_its_messages_only(
    answer: bytes, why: str, registry: Registry, decoder: RegistryDecoder, caplog: pytest.LogCaptureFixture
) -> None:
    good = registry.add('"string"', number=2)
    registry.behaviour = answering(Answer(200, answer), 1000)
    bodies = [framed(1, b"more"), framed(1, b"x")]
    for _ in range(3):
        for reason in values(await decoder.decode(bodies, None)):
            assert why in reason
            assert reason.isprintable()
    assert registry.asked["/schemas/ids/1"] == 1
    registry.behaviour = lambda path: None
    assert values(await decoder.decode([framed(good, b"\x02a")], None)) == ["a"]
    assert not caplog.records


@pytest.mark.parametrize("page", [Answer(200, b"<html>maintenance"), Answer(200, b"{}"), Answer(404, b"nothing here")])
async def test_a_page_in_the_place_of_the_registry_means_that_it_is_away(
    page: Answer,
    registry: Registry,
    decoder: RegistryDecoder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "next_delay", lambda failures: 0.001)
    number, left = registry.add('"string"'), [8]

    def behave(path: str) -> Answer | None:
        left[0] -= 1
        return None if left[0] < 0 else page if path == "/schemas/types" else Answer(200, b"<html>maintenance")

    registry.behaviour = behave
    assert values(await decoder.decode([framed(number, b"\x02a")], None)) == ["a"]
    first, last = [record.getMessage() for record in caplog.records]
    assert first.startswith(f"{registry.url}: /schemas/types answers {page.status} and no")
    assert last.startswith("the schema registry answers again, after")


async def test_a_registry_that_does_not_answer_is_logged_before_the_time_is_over(
    registry: Registry, decoder: RegistryDecoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(decoding, "SLOW_SECONDS", 0.1)
    release, number = threading.Event(), registry.add('"string"')

    def behave(path: str) -> None:
        release.wait(10)

    registry.behaviour = behave
    try:
        for _ in range(4):  # a read that waits is cancelled, and repeated
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.04):
                    await decoder.decode([framed(number, b"\x02a")], None)
    finally:
        release.set()
    assert [record.getMessage() for record in caplog.records] == [
        f"{registry.url}: no answer for 0.1 s; nothing is read until the schema registry answers, waiting"
    ]
    assert values(await decoder.decode([framed(number, b"\x02a")], None)) == ["a"]
    assert caplog.records[-1].getMessage().startswith("the schema registry answers again, after")


async def test_a_registry_that_hangs_is_away(
    registry: Registry, decoder: RegistryDecoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(client, "TIMEOUT", 0.05)
    release = threading.Event()
    number = registry.add('"string"')

    def behave(path: str) -> None:
        if registry.asked[path] == 1:
            release.wait(10)

    registry.behaviour = behave
    with caplog.at_level(logging.WARNING, "qtools.schemas"):
        assert values(await decoder.decode([framed(number, b"\x02a")], None)) == ["a"]
    release.set()
    assert "no answer within 0.05 s; nothing is read" in caplog.text


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(401), "answers 401: the schema registry asks for credentials"),
        (Answer(403), "answers 403: the schema registry asks for credentials"),
        (
            Answer(302, headers=(("Location", "http://user:secret@127.0.0.1:1/x"),)),
            r"answers 302, a redirect to http://127.0.0.1:1/x, which is not followed",
        ),
    ],
)
async def test_a_registry_that_refuses_ends_the_run(
    answer: Answer, why: str, registry: Registry, decoder: RegistryDecoder
) -> None:
    registry.behaviour = answering(answer, 1)
    with pytest.raises(QtoolsError, match=why):
        await decoder.decode([framed(1, b"")], None)


async def test_an_answer_without_end_is_cut(
    registry: Registry, decoder: RegistryDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_BYTES", 1000)
    number = registry.add(json.dumps({"type": "string", "doc": "x" * 1000}))
    (why,) = values(await decoder.decode([framed(number, b"\x02a")], None))
    assert why == f"{registry.url}/schemas/ids/1 answers more than 1,000 bytes"


# ── the start ──


async def test_credentials_come_from_a_file_or_the_environment(tmp_path: Any) -> None:
    file = tmp_path / "auth"
    file.write_text("ann:top:secret\n")
    registry = Registry(credentials="ann:top:secret")
    try:
        for settings in (
            registry_settings(registry.url, str(file)),
            registry_settings(registry.url, environ={"QTOOLS_SCHEMA_REGISTRY_AUTH": "ann:top:secret"}),
        ):
            made = client.Registry(settings)
            await made.start()
            await made.close()
        without = client.Registry(registry_settings(registry.url, environ={}))
        with pytest.raises(StartError, match="answers 401: the schema registry asks for credentials") as caught:
            await without.start()
        wrong = client.Registry(registry_settings(registry.url, environ={client.AUTH_VARIABLE: "ann:wrong"}))
        with pytest.raises(StartError, match="refuses the credentials"):
            await wrong.start()
        assert "secret" not in str(caught.value)
    finally:
        registry.close()


async def test_tls_is_verified(certificates: Certificates) -> None:
    registry = Registry(tls=(str(certificates.server_cert), str(certificates.server_key)))
    try:
        made = client.Registry(registry_settings(registry.url, ca=str(certificates.ca)))
        await made.start()
        await made.close()
        for ca in ("", str(certificates.stranger_ca)):
            made = client.Registry(registry_settings(registry.url, ca=ca))
            with pytest.raises(StartError, match="TLS failed"):
                await made.start()
    finally:
        registry.close()


async def test_what_is_no_registry_is_found_at_the_start(registry: Registry) -> None:
    made = client.Registry(registry_settings(registry.url + "/elsewhere"))
    with pytest.raises(StartError, match="elsewhere/schemas/types answers 404: that is no schema registry"):
        await made.start()
    registry.close()
    made = client.Registry(registry_settings(registry.url))
    with pytest.raises(StartError, match="nothing listens there"):
        await made.start()


@pytest.mark.parametrize(
    ("url", "more", "why"),
    [
        ("http://ann:secret@127.0.0.1", {}, r"http://127.0.0.1 has a user name or a password"),
        ("127.0.0.1:8081", {}, "is no URL such as"),
        ("ftp://127.0.0.1", {}, "is no URL such as"),
        ("http://127.0.0.1?x=1", {}, "is no URL such as"),
        ("http://127.0.0.1:99999", {}, "is no URL such as"),
        ("", {}, "is no URL such as"),
        ("http://127.0.0.1", {"ca": "/some/ca.pem"}, "--registry-ca needs"),
        ("http://127.0.0.1", {"environ": {"QTOOLS_SCHEMA_REGISTRY_AUTH": "ann"}}, "is not one line with USER:PASSWORD"),
    ],
)
def test_settings_that_cannot_be(url: str, more: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        registry_settings(url, **more)
    assert "secret" not in str(caught.value)


# ── as a source ──


async def test_a_read_that_is_cancelled_loses_no_batch_and_logs_no_more(
    registry: Registry, decoder: RegistryDecoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "next_delay", lambda failures: 0.001)
    number = registry.add('"int"')
    away = True
    registry.behaviour = lambda path: Answer(500) if away else None
    feed, ledger = Feed(), Ledger()
    feed.put(ledger.batch(0, 1).with_bodies([framed(number, b"\x02"), framed(number, b"\x04")]))
    source = DecodingSource(feed, BatchDecoder(decoder))
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await source.read()
    away = False
    batch = await source.read()
    assert batch is not None
    assert values(batch.bodies) == [1, 2]
    batch.finish()
    assert ledger.told == [("finish", 0), ("finish", 1)]
    assert [caplog.text.count(words) for words in ("nothing is read until", "answers again")] == [1, 1]


async def test_what_is_given_back_while_it_is_decoded_is_not_returned(
    registry: Registry, decoder: RegistryDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "next_delay", lambda failures: 0.001)
    number = registry.add('"int"')
    away, asked = True, asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(path: str) -> Answer | None:
        loop.call_soon_threadsafe(asked.set)
        return Answer(500) if away else None

    registry.behaviour = answer
    feed, ledger = Feed(), Ledger()
    feed.put(ledger.batch(*range(1000)).with_bodies([framed(number, b"\x02")] * 1000))
    source = DecodingSource(feed, BatchDecoder(decoder))
    reading = asyncio.create_task(source.read())
    await asked.wait()
    assert source.waiting_bytes == 6000
    source.give_back()
    assert (source.waiting_bytes, sorted(ledger.requeued)) == (0, list(range(1000)))
    away = False
    assert await reading is None
    assert ledger.finished == []


async def test_a_batch_that_costs_much_is_decoded_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codecs.make_codec(SchemaText("AVRO", '{"type": "array", "items": "null"}', "s"))
    body = b"\xc8\x0f\0"  # 996 values
    feed, ledger = Feed(), Ledger()
    feed.put(ledger.batch(*range(10_000)).with_bodies([body] * 10_000))
    source = DecodingSource(feed, BatchDecoder(FileDecoder(codec)))
    pauses = 0

    async def count_pauses() -> None:
        nonlocal pauses
        while True:
            pauses += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count_pauses())
    sizes = []
    while sum(sizes) < 3000:
        batch = await source.read()
        assert batch is not None
        assert isinstance(batch.bodies[0], DecodedBody)
        sizes.append(len(batch))
        batch.finish()
    task.cancel()
    assert max(sizes) <= 2000
    assert len(sizes) > 2
    assert pauses >= len(sizes) - 1
    assert ledger.finished == list(range(sum(sizes)))  # in order, each once


async def test_all_portions_of_a_batch_arrive_and_large_bodies_make_small_ones() -> None:
    codec = codecs.make_codec(SchemaText("AVRO", '"string"', "s"))
    small, large = b"\x02a", b"\x80\x80\x40" + b"x" * 524288
    assert codec.decode_all([large], 0, None)[0].__class__ is DecodedBody
    feed, ledger = Feed(), Ledger()
    feed.put(
        ledger.batch(*range(5)).with_bodies([large] * 5),
        ledger.batch(*range(5, 2000)).with_bodies([small] * 1995),
        None,
    )
    source = DecodingSource(feed, BatchDecoder(FileDecoder(codec)))
    sizes = []
    while (batch := await source.read()) is not None:
        sizes.append(len(batch))
        batch.finish()
    assert sizes[:5] == [1] * 5
    assert ledger.finished == list(range(2000))


# ── keys ──

KEYS = [b"\0\0\0\0\1\x02", None, b"\x04", b"no key of Avro"]


class KeyedLog(Ledger):
    """The origin of records, which are numbers."""

    def messages_of(self, records: Sequence[int], bodies: list[bytes]) -> Messages:
        return Messages.of(Message(n + 100, 1, b"%016d" % n, body) for n, body in zip(records, bodies, strict=True))

    def delivered_more_than(self, times: int, records: Sequence[int]) -> dict[int, int]:
        return {place: 9 for place, n in enumerate(records) if n == 2}

    def attributes_of(self, records: Sequence[int], only: Container[str] = Attributes._fields) -> Attributes:
        header = ("__key_schema_id", b"\0\0\0\0\1")
        return Attributes(
            keys=[KEYS[n] for n in records] if "keys" in only else None,
            headers=[[header] if n == 2 else () for n in records] if "headers" in only else None,
            offsets=list(records),
        )


@pytest.mark.parametrize("shows_keys", [False, True])
async def test_keys_have_values_and_stay_what_they_were(
    shows_keys: bool, registry: Registry, decoder: RegistryDecoder
) -> None:
    registry.add(EVENT)
    log, numbers = KeyedLog(), range(4)
    read = Batch([(log, 0, 4)], None, [b"{}"] * 4, numbers, numbers)
    keys = RegistryDecoder(decoder._cache, "__key_schema_id")
    batch = (await BatchDecoder(None, keys, shows_keys=shows_keys).apply(read)).batch.pick([0, 1, 2, 3])
    attributes = batch.attributes()
    assert attributes is not None
    assert attributes.keys == (KEYS if not shows_keys else [b'{"id":1}', None, b'{"id":2}', KEYS[3]])
    assert attributes.offsets == [0, 1, 2, 3]
    found = Filter(None, compile_expression("$key.id")).run(batch)
    assert found[:2] == ([0, 1, 2], [b"1", b"null", b"2"])
    assert "Cannot index string" in str(found[2][3])
    places, _, failed = Filter(compile_expression(". == {}"), None).run(batch)
    assert places == [0, 1, 2]
    assert str(failed[3]).startswith("its key cannot be decoded: it begins with the byte 0x6e")
    assert batch.delivered_more_than(5) == {2: 9}
    assert batch.messages.timestamps() == [100, 101, 102, 103]
    batch.pick([1, 3]).requeue(5)
    batch.pick([2]).finish()
    assert log.told == [("requeue", 1), ("requeue", 3), ("finish", 2)]


# ── without the libraries ──


@pytest.mark.parametrize("kind", ["AVRO", "PROTOBUF", "JSON"])
def test_without_the_extra_one_line_says_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codecs.check_installed(kind)
    monkeypatch.setattr(codecs, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^--decode and --encode need the extra schemas: see qtools help install$"):
        codecs.check_installed(kind)
