"""Each place of a command where an expression stands: it sees the key, the headers and the rest of a message."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from qtools.attributes import TOMBSTONE, Attributes
from qtools.bridge.app import bridge
from qtools.bridge.dry_run import look
from qtools.bridge.options import BridgeOptions
from qtools.cli.run import Signals
from qtools.engines.contract import EndConditions
from qtools.expressions.expression import compile_expression
from qtools.flow.filter import Filter, Rules
from qtools.flow.keying import Keying
from qtools.names import Subscription
from qtools.pipe.app import pipe
from qtools.pipe.options import PipeOptions
from qtools.tail.app import tail
from qtools.tail.options import TailOptions
from qtools.to_file.app import archive
from qtools.to_file.options import ArchiveOptions, DedupeOptions
from tests.engines.memory import EVERYTHING, MemoryEngine
from tests.engines.test_pubsub_http import HERE, running, until

EVENTS = Subscription("events", "own")
EMPTY = EndConditions(until_empty=True)
KEYED = Attributes(
    keys=[b"k1", None, b"\xff"],
    headers=[[("type", b"new")], [("type", b"old"), ("trace-id", b"t1")], []],
    timestamps=[10**18, 10**18 + 1, 10**18 + 2],
)
BODIES = [b'{"n":1}', b"not JSON", TOMBSTONE]


@pytest.fixture
def engine() -> MemoryEngine:
    made = MemoryEngine()
    made.put("events", BODIES, KEYED)
    return made


def options(engine: MemoryEngine, there: MemoryEngine | None = None, **more: object) -> BridgeOptions:
    return BridgeOptions((EVENTS,), engine, there, ends=EMPTY, on_trial=False, show=False, **more)  # type: ignore[arg-type]


async def test_tail(engine: MemoryEngine, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    rules = Rules(
        Filter(
            compile_expression('$headers.type or $key == {base64: "/w=="}'),
            compile_expression('"\\($topic) \\($partition) \\($offset) \\($id) \\($key) \\($headers.type)"'),
        ),
        "skip",
    )
    assert await tail(TailOptions((EVENTS,), engine, ends=EMPTY, rules=rules), Signals()) == 0
    assert capfdbinary.readouterr().out.splitlines() == [
        b'"events 0 0 0000000000000000 k1 new"',
        b'"events 0 1 0000000000000001 null old"',
        b'"events 0 2 0000000000000002 {\\"base64\\":\\"/w==\\"} null"',
    ]


async def test_bridge_where_and_template(engine: MemoryEngine) -> None:
    asked = options(engine, to=("\\($topic).\\($headers.type)",), where="$headers.type != null")
    assert await bridge(asked, Signals()) == 0
    assert (engine.bodies("events.new"), engine.bodies("events.old")) == ([b'{"n":1}'], [b"not JSON"])


async def test_bridge_key_and_headers_from_the_message_that_was_read(engine: MemoryEngine) -> None:
    there = MemoryEngine()
    keying = Keying(
        compile_expression("$key"),
        (("from", compile_expression('"\\($topic)/\\($offset)"')), ("key", compile_expression("$key"))),
    )
    assert await bridge(options(engine, there, to=("copy",), keying=keying), Signals()) == 0
    assert there.topic("copy").keys == KEYED.keys  # bytes that are no text, too
    assert [headers[-2:] for headers in there.topic("copy").headers] == [
        [("from", b"events/0"), ("key", b"k1")],
        [("trace-id", b"t1"), ("from", b"events/1")],
        [("from", b"events/2"), ("key", b"\xff")],
    ]
    assert there.bodies("copy") == BODIES


async def test_bridge_from_an_engine_without_keys(engine: MemoryEngine) -> None:
    plain = MemoryEngine(EVERYTHING._replace(keys_and_headers=False))
    plain.put("events", [b'{"n":1}'])
    keying = Keying(compile_expression("$key // .n"), (("id", compile_expression("$id")),))
    assert await bridge(options(plain, engine, to=("copy",), keying=keying), Signals()) == 0
    assert (engine.topic("copy").keys, engine.topic("copy").headers) == ([b"1"], [[("id", b"0000000000000000")]])


async def test_bridge_routes(engine: MemoryEngine, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        "[[route]]\nwhen = '$headers.type == \"new\"'\nselect = '{n, key: $key}'\nto = 'fresh'\n"
        "[[route]]\nwhen = '$headers[\"trace-id\"]'\nto = 'traced.\\($partition)'\n"
    )
    engine.put("events", [b"{}"])
    asked = options(engine, routes=str(tmp_path / "r.toml"), on_error="drop")
    assert await bridge(asked, Signals()) == 0
    # A route that reads the body needs JSON of every message.
    assert (engine.bodies("fresh"), engine.bodies("traced.0")) == ([b'{"n":1,"key":"k1"}'], [])
    (tmp_path / "r.toml").write_text("[[route]]\nwhen = '$headers[\"trace-id\"]'\nto = 'traced.\\($partition)'\n")
    again = BridgeOptions((Subscription("events", "other"),), engine, None, routes=str(tmp_path / "r.toml"),
                          on_trial=False, show=False, count=2)  # fmt: skip
    engine.channel(again.sources[0]).waiting.extend([0, 1])
    assert await bridge(again, Signals()) == 0
    assert engine.bodies("traced.0") == [b"not JSON"]


async def test_bridge_dedupe(engine: MemoryEngine, tmp_path: Path) -> None:
    engine.put("events", [b"other", b"last"], Attributes(keys=[b"k1", b"k2"]))
    asked = options(engine, to=("copy",), dedupe="$key", dedupe_file=str(tmp_path / "keys"))
    assert await bridge(asked, Signals()) == 0
    assert engine.bodies("copy") == [*BODIES, b"last"]


async def test_dry_run(engine: MemoryEngine, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    engine.capabilities = EVERYTHING._replace(retention=False)  # a dry run sees new messages only
    engine.channel(EVENTS)
    asked = BridgeOptions(
        (EVENTS,), engine, None, to=("\\($headers.type)",), where="$key", dry_run=True, count=3, show=False
    )
    looking = asyncio.create_task(look(asked, Signals()))
    await until(lambda: len(engine.topic("events").channels) == 2)
    engine.put("events", BODIES, KEYED._replace(keys=[b"k1", None, b"k3"]))
    assert await looking == 0
    assert capfdbinary.readouterr().out.splitlines() == [
        b'goes to new\t{"n":1}', b"goes nowhere\tnot JSON",
        b"goes to null\t",
    ]  # fmt: skip


async def test_to_file(engine: MemoryEngine, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    engine.put("events", [b"again"], Attributes(keys=[b"k1"]))
    asked = ArchiveOptions(
        (EVENTS,), engine, tmp_path / "out", work, name="<TOPIC><REV>.log", ends=EMPTY, show=False,
        partition="n=%S", partition_by=compile_expression("$offset"),
        rules=Rules(Filter(compile_expression("$key != null or $headers.type"), None), "skip"),
        dedupe=DedupeOptions(compile_expression("$key"), tmp_path / "keys", 60, 100),
    )  # fmt: skip
    assert await archive(asked, Signals()) == 0
    found = {path.parent.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.log")}
    assert found == {"n=00": b'{"n":1}\n', "n=01": b"not JSON\n", "n=02": b"\n"}


async def test_the_where_of_the_gateway(engine: MemoryEngine) -> None:
    async with running(engine) as client:
        where = {"format": "raw", "until_empty": "true", "where": '$headers.type == "old" or $offset == 0'}
        answer = await client.get("/sub", params=HERE | where)
        assert (answer.status_code, answer.content) == (200, b'{"n":1}\nnot JSON\n')
        engine.put("events", [TOMBSTONE, b"", b'{"n":2}', b"null"])
        seen = await client.get(
            "/sub", params=HERE | where | {"format": "envelope", "where": ". == null or $tombstone"}
        )
        assert [orjson.loads(line)["body"] for line in seen.content.splitlines()] == [None, "null"]
        refused = await client.get("/sub", params=HERE | {"where": "$kye"})
        assert refused.status_code == 400
        assert "did you mean $key?" in refused.text
    assert engine.left(EVENTS) == 0


async def test_bridge_copies_a_compacted_topic_with_its_tombstones(engine: MemoryEngine) -> None:
    engine.put("events", [b"", b"null"])
    there = MemoryEngine()
    asked = options(engine, there, to=("copy",), where="$tombstone or . == null or .n", select=".", on_error="drop")
    assert await bridge(asked, Signals()) == 0
    assert [body is TOMBSTONE for body in there.bodies("copy")] == [False, True, False]
    assert there.bodies("copy") == [b'{"n":1}', TOMBSTONE, b"null"]


async def test_pipe_gives_a_constant_key_to_plain_text(tmp_path: Path) -> None:
    engine = MemoryEngine()
    (tmp_path / "lines").write_bytes(b"hi\n\xff\x00\n")
    keying = Keying(compile_expression('"k"'), (("src", compile_expression('"x"')),))
    assert await pipe(PipeOptions("t", (str(tmp_path / "lines"),), engine, keying=keying), Signals()) == 0
    topic = engine.topic("t")
    assert (engine.bodies("t"), topic.keys) == ([b"hi", b"\xff\x00"], [b"k"] * 2)
    assert topic.headers == [[("src", b"x")]] * 2
