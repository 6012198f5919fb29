"""The text format of Prometheus. In: families of samples. Out: text.

    # HELP qtools_tail_messages_total Messages by outcome.
    # TYPE qtools_tail_messages_total counter
    qtools_tail_messages_total{outcome="finished"} 1204

Commands count in plain ints. Families are made only when Prometheus scrapes, or when metrics are sent to statsd.
prometheus_client is not used, as its import takes 30 ms and 7 MB for this one page; its parser reads the page in tests.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, 0.0.4).
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from qtools import __version__
from qtools.cli.metrics.histogram import HistogramValue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_BEGUN = time.time()

Sample = tuple[dict[str, str], float | HistogramValue]


@dataclass(frozen=True, slots=True)
class Family:
    """The samples of one metric. kind: "counter", "gauge" or "histogram". The name of a counter ends in _total.
    ValueError for another kind or an invalid name."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.kind not in ("counter", "gauge", "histogram"):
            raise ValueError(f"{self.name!r} of the kind {self.kind!r} is not a valid metric family")
        if self.kind == "counter" and not self.name.endswith("_total"):
            raise ValueError(f"{self.name!r} is a counter: its name ends in _total")


def counter(name: str, help_: str, value: float) -> Family:
    """A counter of one sample without labels."""
    return Family(name, "counter", help_, [({}, value)])


def gauge(name: str, help_: str, value: float) -> Family:
    """A gauge of one sample without labels."""
    return Family(name, "gauge", help_, [({}, value)])


def exposition(families: Iterable[Family]) -> str:
    """The page for Prometheus. Families of the same name are joined, whatever their order."""
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
    """The lines of the page before the samples of `family`."""
    return f"# HELP {family.name} {_escaped(family.help)}", f"# TYPE {family.name} {family.kind}"


def sample_lines(name: str, samples: Iterable[Sample]) -> list[str]:
    """The lines of samples of the family `name`, for a page that is made in several pieces."""
    lines: list[str] = []
    for labels, value in samples:
        if isinstance(value, HistogramValue):
            lines += _histogram(name, labels, value)
        else:
            lines.append(f"{name}{_labels(labels)} {_number(value)}")
    return lines


def _histogram(name: str, labels: dict[str, str], value: HistogramValue) -> list[str]:
    """Prometheus' buckets are cumulative: each counts all values up to its bound."""
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
    # The page has to be UTF-8. A label may contain other bytes, as the name of a file.
    text = text.encode("utf-8", "backslashreplace").decode().replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text


def _number(value: float) -> str:
    """A number as Go's ParseFloat reads it: +Inf, -Inf, NaN; an integer has no decimal point."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


# ── the process ──


def process_families(command: str) -> list[Family]:
    """The families that Prometheus' client libraries have for each process. Those that the operating system does not
    offer are left out."""
    times = os.times()
    about = {"command": command, "version": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    families = [
        Family("qtools_build_info", "gauge", "Which program this is.", [(about, 1)]),
        counter("process_cpu_seconds_total", "CPU time, user and system.", times.user + times.system),
    ]
    begun = _BEGUN
    with suppress(OSError, ValueError, IndexError):  # Linux has /proc
        # proc(5): the fields after the command's name, which is in brackets and may contain any character
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if line[:5] == "btime")
        begun = int(boot.split()[1]) + int(stat[19]) / os.sysconf("SC_CLK_TCK")
        families += (
            gauge("process_virtual_memory_bytes", "Virtual memory.", int(stat[20])),
            gauge("process_resident_memory_bytes", "Resident memory.", int(stat[21]) * os.sysconf("SC_PAGE_SIZE")),
        )
    families.append(gauge("process_start_time_seconds", "When the process began, s since 1970.", round(begun, 2)))
    with suppress(OSError):
        families.append(gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")) - 1))
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limit = float("inf") if most == resource.RLIM_INFINITY else float(most)
    families.append(gauge("process_max_fds", "The most file descriptors that may be open.", limit))
    return families
