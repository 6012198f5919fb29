"""Runs in turns, and what follows from their numbers.

The commands take turns, A B C A B C, so that a machine that slows down slows all of them alike; a ratio is taken
within a round, between neighbours. A run that lost, added or changed messages is told, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from measure.processes import Took

WARM_UP = 20_000  # messages; enough that caches, bytecode and the broker's heap are what they will be


@dataclass(slots=True)
class Run:
    """One run of one command over `count` messages."""

    count: int
    took: Took
    broker_cpu: float | None
    wrong: str  # "" when every message is where it should be


@dataclass(slots=True)
class Contender:
    """A command that takes part: `run(n)` is one run of it over n messages."""

    name: str
    count: int
    run: Callable[[int], Run]
    ours: bool


@dataclass(slots=True)
class Series:
    """All runs of one contender; `starts` are runs of a single message, which are start and end and nothing else."""

    name: str
    count: int
    ours: bool
    runs: list[Run] = field(default_factory=list)
    starts: list[Run] = field(default_factory=list)

    def right(self) -> list[Run]:
        return [run for run in self.runs if not run.wrong]

    def rate(self) -> float | None:
        """Messages/s of the whole command, from its start to its end."""
        return _inverse(_median([run.took.seconds / run.count for run in self.right()]))

    def rate_running(self) -> float | None:
        """Messages/s of what the command takes longer than for one message."""
        return _inverse(self._per_message(lambda run: run.took.seconds))

    def cpu(self) -> float | None:
        """CPU seconds per million messages, the start included."""
        return _median([run.took.cpu / run.count * 1e6 for run in self.right()])

    def cpu_running(self) -> float | None:
        """CPU seconds per million messages, without what one message takes."""
        return _million(self._per_message(lambda run: run.took.cpu))

    def peak(self) -> float | None:
        """Bytes; the highest of all runs."""
        return max((run.took.peak for run in self.right()), default=None)

    def broker_cpu(self) -> float | None:
        """The broker's CPU seconds per million messages."""
        return _median([run.broker_cpu / run.count * 1e6 for run in self.right() if run.broker_cpu is not None])

    def broker_rate(self) -> float | None:
        """Messages/s that the broker could pass with one core of its own."""
        cpu = self.broker_cpu()
        return 1e6 / cpu if cpu else None

    def syncs(self) -> float | None:
        """Syncs/s, where the command tells of them."""
        return _median([run.took.syncs / run.took.seconds for run in self.right() if run.took.syncs])

    def per_sync(self) -> float | None:
        """Messages made durable together."""
        return _median([run.count / run.took.syncs for run in self.right() if run.took.syncs])

    def start(self) -> float | None:
        """Seconds that the command takes for one message."""
        return _median([run.took.seconds for run in self.starts if not run.wrong])

    def wrong(self) -> list[str]:
        return [run.wrong for run in self.runs + self.starts if run.wrong]

    def _per_message(self, value: Callable[[Run], float]) -> float | None:
        whole = _median([value(run) for run in self.right()])
        one = _median([value(run) for run in self.starts if not run.wrong])
        if whole is None or one is None or self.count < 2:
            return None
        return (whole - one) / (self.count - 1)


@dataclass(slots=True)
class Ratio:
    """How many times the messages/s of `theirs` `ours` has: the median of the pairs, the least and the most."""

    ours: str
    theirs: str
    middle: float
    least: float
    most: float
    pairs: int


def take_turns(contenders: Sequence[Contender], rounds: int, say: Callable[[str], None]) -> list[Series]:
    """Every contender once to warm up, then all of them in turns, `rounds` times."""
    all_series = [Series(c.name, c.count, c.ours) for c in contenders]
    for contender in contenders:
        say(f"warming up {contender.name}")
        contender.run(min(contender.count, WARM_UP))
    for number in range(1, rounds + 1):
        for contender, series in zip(contenders, all_series, strict=True):
            say(f"round {number} of {rounds}: {contender.name}")
            series.starts.append(contender.run(1))
            series.runs.append(contender.run(contender.count))
    return all_series


def ratios(all_series: Sequence[Series]) -> list[Ratio]:
    """Ours to each of theirs, paired by round."""
    found = []
    for ours in (series for series in all_series if series.ours):
        for theirs in (series for series in all_series if not series.ours):
            pairs = [
                (a.count / a.took.seconds) / (b.count / b.took.seconds)
                for a, b in zip(ours.runs, theirs.runs, strict=True)
                if not a.wrong and not b.wrong
            ]
            if pairs:
                found.append(Ratio(ours.name, theirs.name, median(pairs), min(pairs), max(pairs), len(pairs)))
    return found


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _inverse(value: float | None) -> float | None:
    # The difference of two runs that take a few hundredths of a second may come out as nothing, or less.
    return 1 / value if value is not None and value > 0 else None


def _million(value: float | None) -> float | None:
    return value * 1e6 if value is not None and value >= 0 else None
