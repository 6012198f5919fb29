"""A model of a log that is rotated at random, read at random, by runs that are killed at random.

The writer appends lines and parts of lines; the log is renamed and created anew, or copied and cut; its rotated files
are compressed and removed. All of this happens between the reader's steps, between any two of its looks at the files,
and in the midst of a copy. The reader is the real one, with its real files; its thread is taken away, so that a seed
decides all that happens. A second run with the same checkpoint is tried at random. An account of every line says what
has to arrive, what may be missing (what was appended between a copy and its cut, or removed before it was read), and
what may arrive twice: what was read and not confirmed when a run was killed. Some writers write the same lines over and
over, so that files of a log cannot be told by their contents: then the lines are counted.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import os
import random
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pipe.logs.waits import no_waiting
from qtools.cli.checkpoint import CheckpointInUse
from qtools.formats.lines import DelimiterSplitter
from qtools.message import Batch
from qtools.pipe import checkpoint
from qtools.pipe.checkpoint import LogCheckpoint
from qtools.pipe.log_source import LogSource
from qtools.pipe.logs import open_files, rotated_files
from qtools.pipe.logs.log_file import LogFile
from qtools.pipe.logs.log_reader import LogReader
from qtools.pipe.logs.open_files import LogOptions
from qtools.pipe.logs.rotated_files import RotatedFiles
from qtools.pipe.logs.rotating_log import Idle

KEEP = 6  # rotated files
KEEP_SAME = 100  # where all lines are the same: what is removed could not be told from what was read
SAME = [(b"ok",), (b"begin", b"ok", b"end")]

zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
COMPRESSED = {".gz": gzip, ".zst": zstd, ".bz2": bz2, ".xz": lzma}


class Writer:
    """Writes one log. `lines`: all that has to arrive. `may_miss`: what the way of rotating may lose. same: the lines
    that it writes over and over; () for lines that are each written once."""

    now = 10**18  # ns since 1970

    def __init__(self, path: Path, chance: random.Random, same: tuple[bytes, ...] = (), steps: bool = True) -> None:
        self.path = path
        self.chance = chance
        self.same = same
        self.steps = steps  # something may be read between the copy and the cut
        self.keep = KEEP_SAME if same else KEEP
        self.lines: list[bytes] = []
        self.may_miss: Counter[bytes] = Counter()
        self.history: list[str] = []
        self._count = 0
        self._rest = b""  # what is still to be written of a line that was begun
        self._begun = b""  # what was written of it
        self._copying = ""  # "part" of the log is copied, or the "whole" of it and it is not cut yet
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._stamp()

    def _line(self) -> bytes:
        self._count += 1
        if self.same:
            return self.same[self._count % len(self.same)]
        return b"%s %06d %s" % (self.path.name.encode(), self._count, b"x" * self.chance.randrange(1, 40))

    def append(self) -> None:
        """Some whole lines, or the rest of one; now and then only a part of the last."""
        text = b""
        if self._rest:
            text += self._rest + b"\n"
            self.lines.append(self._begun + self._rest)
            self._rest = self._begun = b""
        for _ in range(self.chance.choice((1, 1, 2, 5, 40))):
            line = self._line()
            self.lines.append(line)
            text += line + b"\n"
        if self.chance.random() < 0.3 and not self.same:
            line = self._line()
            cut = self.chance.randrange(1, len(line))
            self._begun, self._rest = line[:cut], line[cut:]
            text += self._begun
        os.write(self._fd, text)
        self._stamp()

    def _stamp(self) -> None:
        """Let every write have a time of its own: all of this happens within a few ticks of the clock."""
        Writer.now += 1
        os.utime(self._fd, ns=(Writer.now, Writer.now))

    def _end_file(self) -> None:
        """A part of a line that stands at the end of a file is that file's last line."""
        if self._begun:
            self.lines.append(self._begun)
            self._begun = b""
            self._rest = b"-" + self._rest if self._rest in self.lines else self._rest

    def _shift(self) -> None:
        for number in range(self.keep, 0, -1):
            if not any(self.path.parent.glob(f"{self.path.name}.{number}*")):
                continue
            for extension in ("", *COMPRESSED):
                old = Path(f"{self.path}.{number}{extension}")
                if not old.exists():
                    continue
                if number == self.keep:
                    self._lose(old)
                    old.unlink()
                else:
                    old.rename(f"{self.path}.{number + 1}{extension}")

    def _lose(self, path: Path) -> None:
        data = path.read_bytes()
        if path.suffix in COMPRESSED:
            data = COMPRESSED[path.suffix].decompress(data)
        self.may_miss.update(data.split(b"\n"))

    def rename(self, between: bool) -> None:
        """As logrotate's `create`: the writer may go on in the renamed file before it opens the new one."""
        self._shift()
        self.path.rename(f"{self.path}.1")
        if between and self.chance.random() < 0.5:
            self.append()
        fresh = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if between and self.chance.random() < 0.5:
            self.append()
        self._end_file()
        os.close(self._fd)
        self._fd = fresh
        self._stamp()

    def copy_and_cut(self) -> None:
        """As logrotate's `copytruncate`, in one to three steps between which something may be read."""
        copy = Path(f"{self.path}.1")
        while True:
            if not self._copying:
                self._shift()
                data = self.path.read_bytes()
                copy.write_bytes(data[: self.chance.randrange(len(data) + 1)])
                self._copying = "part"
            elif self._copying == "part":
                shutil.copyfile(self.path, copy)
                self._copying = "whole"
            else:
                if not self._begun and self.chance.random() < 0.3:
                    known = len(self.lines)
                    self.append()
                    self.may_miss.update(self.lines[known:])
                    if self._begun:
                        self.may_miss[self._begun] += 1
                os.truncate(self.path, 0)
                self._stamp()
                self._end_file()
                self._copying = ""
                return
            Writer.now += 1
            os.utime(copy, ns=(Writer.now, Writer.now))
            if self.steps and self.chance.random() < 0.3:
                return

    def compress(self) -> None:
        for number in (1, 2):
            old = Path(f"{self.path}.{number}")
            if old.exists() and self.chance.random() < 0.7:
                extension = self.chance.choice(list(COMPRESSED))
                packed = Path(f"{old}{extension}")
                with packed.open("wb") as file:
                    file.write(COMPRESSED[extension].compress(old.read_bytes()))
                shutil.copystat(old, packed)
                old.unlink()

    def act(self, copies: bool) -> None:
        kind = self.chance.choices(("append", "rotate", "compress"), (10, 2, 1))[0]
        if self._copying:
            kind = "rotate"
        if kind == "append":
            self.append()
        elif kind == "compress":
            self.compress()
        elif copies:
            self.copy_and_cut()
        else:
            self.rename(between=True)
        self.history.append(kind)

    def finish(self) -> None:
        """End the last line, so that everything can be read."""
        while self._copying:
            self.copy_and_cut()
        self.append()
        if self._begun:
            os.write(self._fd, self._rest + b"\n")
            self._stamp()
            self.lines.append(self._begun + self._rest)
            self._begun = self._rest = b""

    def close(self) -> None:
        os.close(self._fd)


class Runs:
    """Runs of the reader, one after the other, with one checkpoint."""

    def __init__(self, room: Path, inputs: list[str], chance: random.Random) -> None:
        self.room = room
        self.inputs = inputs
        self.chance = chance
        self.sent: list[bytes] = []
        self.twice: Counter[bytes] = Counter()  # what may arrive once more
        self.missing = 0
        self._disturb: Callable[[], None] = lambda: None  # called between any two system calls of the reader

    @contextlib.contextmanager
    def disturbed(self) -> Iterator[None]:
        """Let the writers go on between the reader's looks at the files, and not only between its steps."""
        with pytest.MonkeyPatch.context() as patch:
            for where, name in (
                (open_files, "look_at"), (open_files, "has_contents_of"), (open_files, "is_copy"),
                (rotated_files, "look_at"), (LogFile, "__init__"), (LogFile, "peek"), (LogFile, "read"),
                (RotatedFiles, "find"),
            ):  # fmt: skip
                patch.setattr(where, name, self._before(getattr(where, name)))
            yield

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            self._disturb()
            return call(*given, **named)

        return called

    def run(self, writers: list[Writer], *, follow: bool, copies: bool, kill: bool, busy: bool) -> None:
        """One run. busy: the writers go on in the midst of it. kill: it ends at a random step."""
        position = LogCheckpoint(str(self.room / "position"), "topic", self.inputs)
        start, known = position.load()
        reader = LogReader(self.inputs, known, LogOptions(follow, (), True))
        source = LogSource(
            reader, lambda base: DelimiterSplitter(base=base), start,
            batch_count=5, on_confirm=lambda: position.save(source.confirmed, source.take_changed()),
        )  # fmt: skip
        source.check()
        position.logs = reader.logs
        position.save(start)
        under_way: deque[Batch] = deque()
        steps = self.chance.randrange(1, 60) if kill else 100_000
        idle = taken = 0

        def disturb() -> None:
            if busy and taken < 80 and self.chance.random() < 0.03:
                self.chance.choice(writers).act(copies)

        self._disturb = disturb
        while steps:
            steps -= 1
            taken += 1
            if self.chance.random() < 0.02:
                with pytest.raises(CheckpointInUse):
                    LogCheckpoint(str(self.room / "position"), "topic", self.inputs).load()
            if busy and taken < 80 and self.chance.random() < 0.4:
                self.chance.choice(writers).act(copies)
            step = reader.step()
            if step is None:
                break
            if isinstance(step, Idle):
                idle += 1
                if follow and idle > 5 and (not busy or taken > 80):
                    break
                continue
            idle = 0
            source._split(step)
            while source._pieces:
                batch = source._pieces.popleft()
                self.sent += batch.bodies
                under_way.append(batch)
            while under_way and (len(under_way) > 3 or self.chance.random() < 0.5):
                under_way.popleft().finish()
        if kill and steps == 0:
            for batch in under_way:
                self.twice.update(batch.bodies)
        else:
            while under_way:
                under_way.popleft().finish()
            position.save(source.confirmed)
        self.missing += reader.missing
        reader.close()
        position._file.close()


async def run_model(room: Path, seed: int, copies: bool | None = None, same: bool = False) -> None:
    """same: the writers write the same lines over and over. Then a copy that is read before the cut may arrive twice,
    as nothing tells it from a log that was cut and begun anew."""
    chance = random.Random(seed)
    lines = chance.choice(SAME) if same else ()
    steps = not same or chance.random() < 0.5
    by_chance = chance.random() < 0.4
    copies = by_chance if copies is None else copies
    names = [f"{name}.log" for name in "abc"[: chance.choice((1, 1, 2, 3))]]
    writers = [Writer(room / name, chance, lines, steps) for name in names]
    inputs = [str(room / "*.log")] if chance.random() < 0.4 else [str(writer.path) for writer in writers]
    runs = Runs(room, inputs, chance)
    disturbed = contextlib.ExitStack()
    disturbed.enter_context(runs.disturbed())
    try:
        if chance.random() < 0.5:
            for writer in writers:
                writer.append()
        # What was rotated away before the first run is not read.
        runs.run(writers, follow=False, copies=copies, kill=False, busy=False)
        for _ in range(chance.randrange(2, 8)):
            for _ in range(chance.randrange(0, 25)):
                chance.choice(writers).act(copies)
            runs.run(
                writers,
                follow=chance.random() < 0.5,
                copies=copies,
                kill=chance.random() < 0.5,
                busy=chance.random() < 0.7,
            )
        for writer in writers:
            writer.finish()
        for _ in range(2):
            runs.run(writers, follow=chance.random() < 0.5, copies=copies, kill=False, busy=False)
    finally:
        disturbed.close()
        for writer in writers:
            writer.close()
    written = Counter(line for writer in writers for line in writer.lines)
    may_miss = sum((writer.may_miss for writer in writers), Counter[bytes]())
    sent = Counter(runs.sent)
    missing = [line for line in written if sent[line] < (written[line] if same else 1) - may_miss[line]]
    cut = [line for line in sent if line not in written and line not in may_miss]
    twice = [line for line in sent if sent[line] > max(1, written[line]) + runs.twice[line]]
    if same and copies and steps:
        twice.clear()
    told = json.dumps([writer.history for writer in writers])
    wrong = {"missing": missing, "cut": cut, "twice": twice}
    if same:
        told = f"{written} {sent} {may_miss} {runs.twice} {told}"
    assert not any(wrong.values()), f"seed {seed}, copies {copies}: {wrong}; the writers did {told}"


@pytest.fixture(autouse=True)
def _saves_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a checkpoint of many logs: most saves are records of what has changed."""
    monkeypatch.setattr(checkpoint, "SMALL", 2000)
    monkeypatch.setattr(checkpoint, "MOST_APPENDED", 10_000)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)


@pytest.mark.parametrize("seed", range(15))
async def test_every_line_arrives_whole_and_once(tmp_path: Path, seed: int) -> None:
    await run_model(tmp_path, seed)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("seed", range(6))
async def test_no_line_is_lost_where_all_lines_are_the_same(tmp_path: Path, seed: int, copies: bool) -> None:
    await run_model(tmp_path, seed, copies, same=True)


async def run_models(room: Path, first: int, copies: bool, same: bool = False) -> None:
    """Fifty seeds, or ten of the slower ones."""
    for seed in range(first, first + (10 if same else 50)):
        (room / str(seed)).mkdir()
        await run_model(room / str(seed), seed, copies, same)
        shutil.rmtree(room / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("first", [*range(1000, 1500, 50), 20_000])
async def test_every_line_arrives_whole_and_once_in_many_runs(tmp_path: Path, first: int) -> None:
    await run_models(tmp_path, first, copies=False)


@pytest.mark.slow
@pytest.mark.parametrize("first", [*range(1000, 1500, 50), 7000, 7300, 7400])
async def test_every_line_arrives_over_copies_and_cuts_in_many_runs(tmp_path: Path, first: int) -> None:
    await run_models(tmp_path, first, copies=True)


@pytest.mark.slow
@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("first", [*range(30, 80, 10), 1040, 1060])
async def test_no_line_is_lost_where_all_lines_are_the_same_in_many_runs(
    tmp_path: Path, first: int, copies: bool
) -> None:
    await run_models(tmp_path, first, copies, same=True)
