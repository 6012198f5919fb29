"""How far an input is confirmed, when messages in the middle of a block are finished later than others."""

from __future__ import annotations

from pathlib import Path

from qtools.formats.lines import DelimiterSplitter
from qtools.message import Batch
from qtools.pipe.blocks import Position
from qtools.pipe.input import InputSource


async def test_the_input_is_confirmed_up_to_the_first_message_that_is_not_finished(tmp_path: Path) -> None:
    """Equal lines among them, as only their numbers tell such lines apart."""
    path = tmp_path / "lines"
    path.write_bytes(b"aa\n" * 10)
    saved: list[int] = []
    source = InputSource(
        [str(path)], lambda base: DelimiterSplitter(base=base), Position(), batch_count=3,
        on_confirm=lambda: saved.append(source.confirmed.messages),
    )  # fmt: skip
    batches: list[Batch] = []
    while (batch := await source.read()) is not None:
        batches.append(batch)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    batches[0].without([1]).finish()  # the second message was refused
    assert source.confirmed == Position(0, 3, 3, 1)
    batches[1].finish()
    assert source.confirmed == Position(0, 3, 3, 1)
    batches[0].pick([1]).finish()
    assert source.confirmed == Position(0, 18, 18, 6)
    batches[3].finish()
    batches[2].finish()
    assert source.confirmed == Position(0, 30, 30, 10)
    assert saved == [1, 6, 10]
    await source.close()
