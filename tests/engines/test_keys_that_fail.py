"""--key and --header of q-pipe and q-bridge on messages for which an expression fails: as --on-error says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from qtools.bridge.app import bridge
from qtools.bridge.options import BridgeOptions
from qtools.cli.run import Signals
from qtools.engines.contract import EndConditions
from qtools.expressions.expression import compile_expression
from qtools.flow.keying import Keying
from qtools.flow.steps import OnError
from qtools.names import Subscription
from qtools.pipe.app import pipe
from qtools.pipe.options import PipeOptions
from tests.engines.memory import MemoryEngine

LINES = [b'{"user":"a"}', b"no JSON", b'{"user":"b"}']
KEYING = Keying(compile_expression(".user"), (("user", compile_expression(".user")),))
WHY = "message 2: --key: it is not JSON"
ADVICE = "(--on-error skip leaves such messages out, --on-error pass passes them on unchanged)"


@pytest.mark.parametrize(
    ("on_error", "status", "sent", "said"),
    [
        ("fail", 1, None, ADVICE),
        ("skip", 0, [(b"a", LINES[0]), (b"b", LINES[2])], "1 message without a key or header left out"),
        ("pass", 0, [(b"a", LINES[0]), (None, LINES[1]), (b"b", LINES[2])], "1 message without a key or header sent"),
    ],
)
async def test_pipe(
    on_error: OnError,
    status: int,
    sent: list[tuple[bytes | None, bytes]] | None,
    said: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = MemoryEngine()
    (tmp_path / "lines").write_bytes(b"\n".join(LINES))
    options = PipeOptions("events", (str(tmp_path / "lines"),), engine, keying=KEYING, on_error=on_error)
    with caplog.at_level(logging.INFO):
        assert await pipe(options, Signals()) == status
    assert said in caplog.text
    assert (WHY in caplog.text) is (on_error != "pass")
    assert "oversize" not in caplog.text
    assert "too big" not in caplog.text
    found = list(zip(engine.topic("events").keys, engine.bodies("events"), strict=True))
    if sent is not None:
        assert found == sent
    else:
        assert found[:1] == [(b"a", LINES[0])]


@pytest.mark.parametrize("on_error", ["dead-letter", "drop", "pass"])
async def test_bridge(on_error: str) -> None:
    engine = MemoryEngine()
    engine.put("events", LINES)
    options = BridgeOptions(
        (Subscription("events", "own"),), engine, None, to=("copy",), keying=KEYING, on_error=on_error,
        ends=EndConditions(until_empty=True), show=False,
    )  # fmt: skip
    assert await bridge(options, Signals()) == 0
    passed = [(b"a", LINES[0]), *([(None, LINES[1])] if on_error == "pass" else []), (b"b", LINES[2])]
    assert list(zip(engine.topic("copy").keys, engine.bodies("copy"), strict=True)) == passed
    assert len(engine.bodies("events.dead")) == (1 if on_error == "dead-letter" else 0)
