"""q-to-file beside nsq_to_file: a backlog into files, until the broker has nothing left that is not finished.

Neither is asked to end by itself: nsq_to_file has no way to. The clock stops when the broker says that every message
was acknowledged, and both acknowledge what they have fsynced; then they are told to end, and the files are read.
"""

from __future__ import annotations

import gzip
import importlib
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from measure.processes import run_until
from measure.rounds import Contender, Run

if TYPE_CHECKING:
    from measure.brokers import Broker
    from measure.sections import Bench

CHANNEL = "bench"
# Both wait no longer than this for more: nsq_to_file would keep the last messages for half a minute.
SYNC = "100ms"


def open_zstd(path: Path) -> IO[bytes]:
    zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    opened: IO[bytes] = zstd.open(path)
    return opened


OPENERS: dict[str, Callable[[Path], Any]] = {".log": lambda path: path.open("rb"), ".gz": gzip.open, ".zst": open_zstd}

Archiver = Callable[[str, Path], list[str]]  # topic, output → the command


def archivers(bench: Bench, broker: Broker, compression: str) -> list[Contender]:
    """q-to-file, and nsq_to_file where it is there, with its own max-in-flight and with ours."""
    gzipped = compression == "gzip"

    def ours(topic: str, output: Path) -> list[str]:
        return [
            bench.tools.q_to_file, f"{topic}/{CHANNEL}", f"--nsqd-tcp-address={broker.address}", f"--output={output}",
            f"--compression={compression}", f"--sync-interval={SYNC}",
        ]  # fmt: skip

    contenders = [archiver(bench, broker, f"q-to-file, {compression}", ours, ours=True)]
    if (program := bench.tools.nsq_to_file) and compression != "zstd":
        for name, more in (("", []), (", 2500 in flight", ["-max-in-flight=2500"])):

            def theirs(topic: str, output: Path, more: list[str] = more) -> list[str]:
                return [
                    program, f"-topic={topic}", f"-channel={CHANNEL}", f"-nsqd-tcp-address={broker.address}",
                    f"-output-dir={output}", f"-sync-interval={SYNC}", *(["-gzip"] if gzipped else []), *more,
                ]  # fmt: skip

            contenders.append(archiver(bench, broker, f"nsq_to_file{name}", theirs, ours=False))
    return contenders


def archiver(bench: Bench, broker: Broker, name: str, argv: Archiver, *, ours: bool) -> Contender:
    """A command that writes a channel into files: right when these hold just the queued messages."""

    def once(count: int) -> Run:
        topic = next(bench.topics)
        output = bench.directory / f"archive-{topic}"
        output.mkdir()
        broker.create(topic, CHANNEL)
        broker.fill(topic, bench.events.file(count))
        queued = broker.settle(topic, lambda c: c.waiting >= count).waiting
        before = broker.cpu()
        talk = bench.directory / "talk"
        took = run_until(argv(topic, output), lambda: not broker.counts(topic).waiting, talk)
        after = broker.cpu()
        broker.delete(topic)
        wrong = f"{queued:,} of {count:,} messages were queued" if queued != count else difference(bench, output, count)
        took = replace(took, syncs=syncs_told(talk))
        shutil.rmtree(output)
        return Run(count, took, after - before if before is not None and after is not None else None, wrong)

    return Contender(name, bench.count, once, ours)


def difference(bench: Bench, output: Path, count: int) -> str:
    """What is wrong with the finished files below `output`; "" when they hold the first `count` messages."""
    joined = bench.directory / "joined"
    with joined.open("wb") as into:
        for path in sorted(output.iterdir()):
            if path.is_file() and path.name.startswith("bench-"):
                with OPENERS[path.suffix](path) as source:
                    shutil.copyfileobj(source, into)
    return bench.events.difference(joined, count)


def syncs_told(talk: Path) -> int | None:
    """How many syncs a command says it made: ours in its summary, nsq_to_file in a line for each."""
    text = talk.read_text(errors="replace")
    if found := re.search(r" ([0-9,]+) syncs?\b", text):
        return int(found[1].replace(",", ""))
    return text.count("] syncing ") or None
