"""A note tells the last state that was written whole, whatever a crash did to the one after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qtools.to_file.archive.journal import HEAD_SIZE, SLOT_SIZE, FileJournal, FileState, JournalHead, fits

HEAD = JournalHead("events", "dt=2026-11-23/hour=08/events<REV>.log", "raw", "gzip")
BIG = 2**63 - 1
FULL = FileState(BIG, BIG, BIG, BIG, 2**32 - 1, BIG, BIG, f"{(1 << 127) - 1:x}", BIG, "f" * 64, 10**9)


def test_the_last_state_comes_back_and_the_next_one_after_it(tmp_path: Path) -> None:
    path = tmp_path / "n.note"
    note = FileJournal.create(path, HEAD)
    for length in range(1, 8):
        note.write(FileState(length=length))
        found = FileJournal.open(path)
        assert found is not None
        assert found[1:] == (HEAD, FileState(length=length))
        found[0].close()
    note.close()
    reopened = FileJournal.open(path)
    assert reopened is not None
    reopened[0].write(FULL)
    reopened[0].close()
    again = FileJournal.open(path)
    assert again is not None
    assert again[2] == FULL
    again[0].close()
    assert path.stat().st_size == HEAD_SIZE + 2 * SLOT_SIZE


@pytest.mark.parametrize("torn", range(0, SLOT_SIZE, 37))
def test_a_torn_slot_leaves_the_one_before(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "n.note"
    note = FileJournal.create(path, HEAD)
    before, after = replace(FULL, length=1), replace(FULL, length=2, sha256="0" * 64)
    note.write(before)
    old = path.read_bytes()
    note.write(after)
    note.close()
    new = path.read_bytes()
    (at,) = [at for at in (HEAD_SIZE, HEAD_SIZE + SLOT_SIZE) if old[at : at + SLOT_SIZE] != new[at : at + SLOT_SIZE]]
    path.write_bytes(new[: at + torn] + old[at + torn : at + SLOT_SIZE] + new[at + SLOT_SIZE :])
    found = FileJournal.open(path)
    assert found is not None
    found[0].close()
    assert found[2] in (before, FileState(), after)
    assert (found[2] == after) == (path.read_bytes() == new)


@pytest.mark.parametrize("data", [b"", b"\0" * 5120, b"x" * 5120, b"00000000 {}".ljust(5120)])
def test_what_is_no_note_is_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "n.note"
    path.write_bytes(data)
    assert FileJournal.open(path) is None


def test_a_head_that_is_too_long_does_not_fit() -> None:
    assert fits(HEAD)
    assert not fits(replace(HEAD, name="n" * HEAD_SIZE))
