"""The result of a run. In: what was counted. Out: text for people, or one line of JSON, and the exit status."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from qtools.cli.types import format_duration, plural
from qtools.soak.history import DeliveryHistory, NumberRun
from qtools.soak.latency import LatencyCounter
from qtools.soak.options import SoakOptions

SHOWN_RUNS = 10  # runs of lost numbers in the text
JSON_RUNS = 1000


@dataclass(slots=True)
class SoakResult:
    """All that is reported. Times in s. sent_at: when about a number was sent, s since 1970."""

    options: SoakOptions
    history: DeliveryHistory
    published: LatencyCounter
    delivered: LatencyCounter
    sent_at: Callable[[int], float]
    publish_seconds: float
    seconds: float
    foreign: int = 0
    corrupted: int = 0
    refused: int = 0
    resent: int = 0
    redelivered: int = 0
    publisher_reconnects: int = 0
    reader_reconnects: int = 0
    reader_restarts: int = 0
    failure: str = ""  # why the run ended early

    def faults(self) -> list[str]:
        """What is wrong, in words; nothing if the test was passed."""
        options, history = self.options, self.history
        found = [
            (history.unread, "lost"),
            (self.corrupted, "corrupted"),
            (history.never_sent, "delivered and never sent"),
            (history.doubled if options.no_duplicates else 0, "doubled"),
            (history.out_of_order if options.ordered else 0, "out of order"),
        ]
        words = [f"{plural(count, 'message')} {what}" for count, what in found if count]
        if not history.confirmed:
            words.append("no message was confirmed")
        return [*words, self.failure] if self.failure else words

    @property
    def exit_status(self) -> int:
        return 1 if self.faults() else 0


def as_json(result: SoakResult) -> str:
    """One line of JSON, without its newline."""
    options, history = result.options, result.history
    runs = list(islice(history.lost(), JSON_RUNS))
    fields: dict[str, Any] = {
        "ok": not result.faults(),
        "faults": result.faults(),
        "from": _place(options, options.topic),
        "to": _place(options, str(options.subscription), is_end=True),
        "size": options.size,
        "keys": options.keys,
        "sent": history.sent,
        "confirmed": history.confirmed,
        "unconfirmed": history.unconfirmed,
        "unconfirmed_delivered": history.unconfirmed_read,
        "refused": result.refused,
        "read": history.read,
        "lost": history.unread,
        "doubled": history.doubled,
        "out_of_order": history.out_of_order,
        "corrupted": result.corrupted,
        "never_sent": history.never_sent,
        "foreign": result.foreign,
        "exact": history.is_exact,
        "lost_runs": [
            {
                "first": run.start,
                "last": run.stop - 1,
                "count": run.messages,
                "sent_at": _moment(result.sent_at(run.start)),
            }
            for run in runs
        ],
        "publish_seconds": round(result.publish_seconds, 3),
        "seconds": round(result.seconds, 3),
        "confirmed_per_second": _rate(history.confirmed, result.publish_seconds),
        "read_per_second": _rate(history.read, result.seconds),
        "latency_confirmed": _latency_fields(result.published),
        "latency_read": _latency_fields(result.delivered),
        "resent": result.resent,
        "redelivered": result.redelivered,
        "reconnects": {"publisher": result.publisher_reconnects, "reader": result.reader_reconnects},
        "reader_restarts": result.reader_restarts,
    }
    return json.dumps(fields)


def as_text(result: SoakResult) -> str:
    """Some lines, each with its newline."""
    options, history = result.options, result.history
    by_key = f" within {plural(options.keys, 'key')}" if options.keys > 1 else ""
    size = f"{options.size:,} bytes"
    rows = [
        ("from", _place(options, options.topic)),
        ("to", _place(options, str(options.subscription), is_end=True)),
        ("sent", f"{plural(history.sent, 'message')} of {size} in {format_duration(result.publish_seconds)}"),
        ("confirmed", f"{history.confirmed:,}, {_rate(history.confirmed, result.publish_seconds):,}/s"),
        ("unconfirmed", _unconfirmed(result)),
        ("read", f"{history.read:,}, {_rate(history.read, result.seconds):,}/s"),
        ("lost", f"{history.unread:,}" + ("" if history.is_exact else " (which ones is not known exactly)")),
        *(("", _lost_run(run, result)) for run in islice(history.lost(), SHOWN_RUNS)),
        ("doubled", f"{history.doubled:,}"),
        ("out of order", f"{history.out_of_order:,}{by_key}"),
        ("corrupted", f"{result.corrupted:,}"),
    ]
    if history.never_sent:
        rows.append(("never sent", f"{history.never_sent:,} delivered"))
    if result.foreign:
        rows.append(("foreign", f"{result.foreign:,} of other publishers"))
    rows += [("to confirmed", _latency_text(result.published)), ("to read", _latency_text(result.delivered))]
    rows.append(("reconnects", _reconnects(result)))
    faults = result.faults()
    rows.append(("result", "; ".join(faults) if faults else "nothing lost, nothing corrupted"))
    return "".join(f"{name:<14}{text}\n" for name, text in rows)


def _place(options: SoakOptions, name: str, *, is_end: bool = False) -> str:
    engine = options.to_engine if is_end else options.engine
    return f"{name} of {engine}"


def _unconfirmed(result: SoakResult) -> str:
    history = result.history
    if not history.unconfirmed:
        return "0"
    text = f"{history.unconfirmed:,}, of which {history.unconfirmed_read:,} were delivered"
    return f"{text}; {result.refused:,} were refused" if result.refused else text


def _lost_run(run: NumberRun, result: SoakResult) -> str:
    sent, last = _moment(result.sent_at(run.start)), _moment(result.sent_at(run.stop - 1))
    sent += f" to {last}" if last != sent else ""
    if run.messages == 1:
        return f"number {run.start:,}, sent {sent}"
    if run.messages < run.stop - run.start:
        return f"{run.messages:,} of the numbers {run.start:,} to {run.stop - 1:,}, sent {sent}"
    return f"numbers {run.start:,} to {run.stop - 1:,}, sent {sent}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _rate(count: int, seconds: float) -> int:
    return round(count / seconds) if seconds > 0 else 0


def _latency_fields(latency: LatencyCounter) -> dict[str, float]:
    """Seconds, by the name of the percentile."""
    found = {f"p{share:g}": round(seconds, 6) for share, seconds in latency.percentiles()}
    return {**found, "max": round(latency.highest / 1e9, 6)}


def _latency_text(latency: LatencyCounter) -> str:
    if not latency.count:
        return "-"
    parts = [f"p{share:g} {_short(seconds)}" for share, seconds in latency.percentiles()]
    return ", ".join([*parts, f"max {_short(latency.highest / 1e9)}"])


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _reconnects(result: SoakResult) -> str:
    text = f"{result.publisher_reconnects:,} of the publisher, {result.reader_reconnects:,} of the reader"
    if result.options.separate_reader:
        text += f", which was started again {plural(result.reader_restarts, 'time')}"
    return f"{text}; {result.resent:,} messages sent again, {result.redelivered:,} redelivered"
