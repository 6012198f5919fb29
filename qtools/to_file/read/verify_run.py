"""One run of q-to-file verify: an archive, the check, and the table on stdout."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from qtools.cli import logs
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import Signals
from qtools.cli.types import format_size, plural
from qtools.cli.worker import Worker
from qtools.descriptors import STDOUT, write_until_error
from qtools.errors import InputError, SinkError
from qtools.to_file.read.verify import Report, Verifier, read_archive
from qtools.to_file.stores.opening import open_to_read


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What q-to-file verify needs. show: whether it prints a table, and progress, also when no fault is found."""

    url: str
    endpoint: str = ""
    deep: bool = False
    fail_on_duplicates: bool = False
    as_json: bool = False
    delimiter: bytes = b"\n"
    show: bool = True


async def check(options: CheckOptions, signals: Signals) -> int:
    """Check the archive, and print the report; returns the exit status. StartError if the archive cannot be read,
    InputError if it has no files."""
    checking = asyncio.current_task()
    assert checking is not None
    signals.on_stop(lambda: _cancel(checking))
    try:
        store = await open_to_read(options.url, endpoint=options.endpoint)
        archive = await read_archive(store)
        if not archive.entries and not archive.manifested and not archive.findings:
            # The prefix may be wrong.
            raise InputError(f"{options.url} has no files: nothing was checked")
        verifier = Verifier(store, archive, deep=options.deep, delimiter=options.delimiter)
        meter = ProgressLine("checked", lambda: (verifier.report.messages, verifier.report.size), show=options.show)
        try:
            report = await verifier.run()
        finally:
            meter.close()
    except asyncio.CancelledError:
        if signals.received is None:
            raise
        logs.log(logging.ERROR, f"stopped by {signals.received.name} before the end of the archive")
        return 1
    status = 1 if report.findings or (options.fail_on_duplicates and report.again) else 0
    if not status and not options.show and not options.as_json:
        return 0
    lines = _json_lines(report) if options.as_json else _table(report)
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    try:
        _, error = await Worker("output").call(write_until_error, STDOUT, data)
    except asyncio.CancelledError:
        if signals.received is None:
            raise
        logs.log(logging.ERROR, f"stopped by {signals.received.name} before the report was written")
        return 1
    if error is not None and not isinstance(error, BrokenPipeError):
        raise SinkError(f"cannot write to stdout: {error.strerror or error}")
    return status


def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()


def _table(report: Report) -> list[str]:
    """A row of totals for each directory, a row for each finding, and a last line."""
    sums: dict[str, list[int]] = {}
    for each in report.good:
        row = sums.setdefault(each.name.rpartition("/")[0], [0, 0, 0])
        row[0], row[1], row[2] = row[0] + 1, row[1] + each.count, row[2] + each.size
    rows = [
        (name or ".", f"{files:,}", f"{count:,}", format_size(size), "complete" if name in report.complete else "")
        for name, (files, count, size) in sorted(sums.items())
    ]
    lines = _rows([("DIRECTORY", "FILES", "MESSAGES", "SIZE", ""), *rows], right=(1, 2, 3)) if rows else []
    found = [(each.kind, each.name, each.told) for each in (*report.findings, *report.remarks)]
    if found:
        lines += _rows([("FOUND", "FILE", ""), *found])
    good = f"{plural(report.files, 'file')}, {plural(report.messages, 'message')}, {format_size(report.size)}"
    wrong = len({each.name for each in report.findings})
    lines.append(f"not as it should be: {plural(wrong, 'file')}; good: {good}" if wrong else f"all good: {good}")
    return lines


def _rows(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if nth in right else cell.ljust(width)
            for nth, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(_shown("  ".join(cells).rstrip()))
    return lines


def _shown(text: str) -> str:
    """A text without control characters, which could act on a terminal: names of files may contain any."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _json_lines(report: Report) -> list[str]:
    import orjson

    lines = [orjson.dumps(each._asdict()).decode() for each in (*report.findings, *report.remarks)]
    summary = {
        "files": report.files, "messages": report.messages, "bytes": report.bytes, "size": report.size,
        "again": report.again, "findings": len(report.findings),
    }  # fmt: skip
    return [*lines, orjson.dumps(summary).decode()]
