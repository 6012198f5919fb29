"""What is counted, as Prometheus reads it. In: families of samples, made when they are asked for. Out: text.

    # HELP qtools_tail_messages_total Messages by what became of them.
    # TYPE qtools_tail_messages_total counter
    qtools_tail_messages_total{outcome="finished"} 1204

The work counts in plain ints; nothing here runs but at a scrape, or when statsd is told. The text is made here and
not by prometheus_client, whose import costs 30 ms and 7 MB for this one page; its parser reads it in the tests.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, 0.0.4).
"""

from __future__ import annotations

import os
import re
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from qtools import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From half a millisecond, which a local nsqd needs, to the ten seconds after which nobody waits any more.
LATENCY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_BEGUN = time.time()


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """What a Histogram holds at one moment. `counts` has one more than `bounds`: what is above the last."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def since(self, before: HistogramValue | None) -> HistogramValue:
        """What was added after `before`."""
        if before is None:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return HistogramValue(self.bounds, counts, self.sum - before.sum)

    def quantile(self, share: float) -> float:
        """Below what a `share` (0..1) of it lies; linear within a bucket, as Prometheus' histogram_quantile has it.

        What is above the last bound counts as that bound. 0.0 of nothing.
        """
        rank, seen, low = share * self.count, 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and seen + count >= rank:
                return low + (bound - low) * max(0.0, rank - seen) / count
            seen += count
            low = bound
        return low if self.count else 0.0


class Histogram:
    """How often what was how large. `bounds` ascend; a value falls into the first that it is not above."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float] = LATENCY_SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`value` was seen `count` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def value(self) -> HistogramValue:
        """What was seen so far."""
        return HistogramValue(self._bounds, tuple(self._counts), self._sum)


Sample = tuple[dict[str, str], float | HistogramValue]


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one name. `kind` is "counter", "gauge" or "histogram"; a counter's name ends in _total."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.kind not in ("counter", "gauge", "histogram"):
            raise ValueError(f"no family can be {self.name!r}, a {self.kind!r}")
        if self.kind == "counter" and not self.name.endswith("_total"):
            raise ValueError(f"{self.name!r} is a counter: its name ends in _total")


def counter(name: str, help_: str, value: float) -> Family:
    """A counter of one sample without labels."""
    return Family(name, "counter", help_, [({}, value)])


def gauge(name: str, help_: str, value: float) -> Family:
    """A gauge of one sample without labels."""
    return Family(name, "gauge", help_, [({}, value)])


def exposition(families: Iterable[Family]) -> str:
    """`families` as a page for Prometheus. Those of one name are told together, whatever their order."""
    grouped: dict[str, list[Family]] = {}
    for family in families:
        grouped.setdefault(family.name, []).append(family)
    lines: list[str] = []
    for name, group in grouped.items():
        lines += head_lines(group[0])
        for family in group:
            lines += sample_lines(name, family.samples)
    return "\n".join([*lines, ""])


def head_lines(family: Family) -> tuple[str, str]:
    """The lines of a page that stand before the samples of `family`."""
    return f"# HELP {family.name} {_escaped(family.help)}", f"# TYPE {family.name} {family.kind}"


def sample_lines(name: str, samples: Iterable[Sample]) -> list[str]:
    """The lines of some samples of the family `name`, for a page that is made in several pieces."""
    lines: list[str] = []
    for labels, value in samples:
        if isinstance(value, HistogramValue):
            lines += _histogram(name, labels, value)
        else:
            lines.append(f"{name}{_labels(labels)} {_number(value)}")
    return lines


def _histogram(name: str, labels: dict[str, str], value: HistogramValue) -> list[str]:
    """Buckets as Prometheus has them: each counts all that is not above its bound."""
    lines, total = [], 0
    for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
        total += count
        lines.append(f"{name}_bucket{_labels({**labels, 'le': _number(bound)})} {total}")
    return [*lines, f"{name}_sum{_labels(labels)} {_number(value.sum)}", f"{name}_count{_labels(labels)} {total}"]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{_escaped(value, quote=True)}"' for name, value in labels.items()]) + "}"


def _escaped(text: str, *, quote: bool = False) -> str:
    # What is no UTF-8 came by a file's name or the like; the page has to be UTF-8 all the same.
    text = text.encode("utf-8", "backslashreplace").decode().replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text


def _number(value: float) -> str:
    """As Go's ParseFloat reads it: +Inf, -Inf, NaN; what is whole without a point."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


# ── the process ──


def process_families(command: str) -> list[Family]:
    """What Prometheus' own clients tell of every process, by their names; what the system does not tell is left out."""
    times = os.times()
    about = {"command": command, "version": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    families = [
        Family("qtools_build_info", "gauge", "Which program this is.", [(about, 1)]),
        counter("process_cpu_seconds_total", "CPU time, user and system.", times.user + times.system),
    ]
    begun = _BEGUN
    with suppress(OSError, ValueError, IndexError):  # Linux has /proc
        # proc(5): after the command's name, which may hold anything, in brackets
        told = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if line[:5] == "btime")
        begun = int(boot.split()[1]) + int(told[19]) / os.sysconf("SC_CLK_TCK")
        families += (
            gauge("process_virtual_memory_bytes", "Virtual memory.", int(told[20])),
            gauge("process_resident_memory_bytes", "Memory held.", int(told[21]) * os.sysconf("SC_PAGE_SIZE")),
        )
    families.append(gauge("process_start_time_seconds", "When it began, s since 1970.", round(begun, 2)))
    with suppress(OSError):
        families.append(gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")) - 1))
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limit = float("inf") if most == resource.RLIM_INFINITY else float(most)
    families.append(gauge("process_max_fds", "The most file descriptors that may be open.", limit))
    return families
