"""q-bridge beside nsq_to_nsq: all that is queued in a topic into another topic, or several, of the same broker.

Neither ends by itself: the clock runs from the start of the process until the channel is drained, and it is ended then.
Right is a run after which the destination has just the messages that a reader of the condition would pass.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from measure.brokers import Broker
from measure.processes import run_until
from measure.rounds import Contender, Run
from measure.table import COMMAND, Table

if TYPE_CHECKING:
    from measure.sections import Bench

CHANNEL = "bench"
FIELD, VALUE = "type", "track"  # what about half of the messages have
ROUTED = "event"  # the field that routes look at
ROUTES = (10, 20, 200)
WIDTHS = (("nsq_to_nsq", []), ("nsq_to_nsq, 2500 in flight", ["-max-in-flight=2500"]))  # its default is 200

# Source topic, and what its destinations' names begin with → the command.
Argv = Callable[[str, str], list[str]]
# How many messages → how many of them shall be in each destination, by the rest of its name.
Expected = Callable[[int], dict[str, int]]


def bridge(bench: Bench) -> list[Table]:
    """q-bridge, and nsq_to_nsq where it is there: a copy, a filter; and routes, which nsq_to_nsq has not."""
    with ExitStack() as stack:
        broker = bench.one_broker(stack)
        notes = ["until the channel is drained; nsq_to_nsq drops what is no JSON object, and after five attempts"]
        tables = [
            Table(bench.title(title), COMMAND, bench.take_turns(contenders), notes)
            for title, contenders in (
                (f"A topic into another, {broker.name}", copies(bench, broker)),
                (f"… those whose {FIELD} is {VALUE}", filters(bench, broker)),
            )
        ]
        routed = [routes(bench, broker, count) for count in ROUTES]
        return [*tables, Table(bench.title(f"… by a routes file on {ROUTED}"), COMMAND, bench.take_turns(routed))]


def copies(bench: Bench, broker: Broker) -> list[Contender]:
    made = [bridging(bench, broker, "q-bridge", q_bridge(bench, broker), lambda count: {"": count})]
    if bench.tools.nsq_to_nsq:
        made += [
            bridging(bench, broker, name, nsq_to_nsq(bench, broker, *more), lambda count: {"": count}, ours=False)
            for name, more in WIDTHS
        ]
    return made


def filters(bench: Bench, broker: Broker) -> list[Contender]:
    @cache
    def expected(count: int) -> dict[str, int]:
        return {"": fields(bench, count, FIELD)[VALUE]}

    where = ["--where", f'.{FIELD} == "{VALUE}"']
    made = [bridging(bench, broker, "q-bridge --where", q_bridge(bench, broker, *where), expected)]
    if bench.tools.nsq_to_nsq:
        named = [f"-require-json-field={FIELD}", f"-require-json-value={VALUE}"]
        made += [
            bridging(bench, broker, name, nsq_to_nsq(bench, broker, *named, *more), expected, ours=False)
            for name, more in WIDTHS
        ]
    return made


def routes(bench: Bench, broker: Broker, number: int) -> Contender:
    """`number` routes: the values that there are among others that there are not, and a default."""
    wanted = [value for value in fields(bench, bench.count, ROUTED) if value]
    values = [*(f"none {nth}" for nth in range(number - len(wanted))), *wanted]

    def argv(source: str, destination: str) -> list[str]:
        path = bench.directory / f"routes-{number}.toml"
        lines = [
            f"[[route]]\nwhen = '.{ROUTED} == \"{value}\"'\nto = '{destination}-{nth}'\n"
            for nth, value in enumerate(values)
        ]
        path.write_text("".join(lines) + f"[default]\nto = '{destination}-rest'\n")
        return [*start(bench, broker, source), "--routes", str(path)]

    @cache
    def expected(count: int) -> dict[str, int]:
        found = fields(bench, count, ROUTED)
        return {"-rest": found[""]} | {f"-{values.index(value)}": found[value] for value in wanted}

    return bridging(bench, broker, f"q-bridge, {number} routes", argv, expected)


def fields(bench: Bench, count: int, name: str) -> Counter[str]:
    """How often each value of a field is among the first `count` messages; "" where it is missing."""
    with bench.events.file(count).open("rb") as lines:
        return Counter(json.loads(line).get(name, "") for line in lines)


def start(bench: Bench, broker: Broker, source: str) -> list[str]:
    return [bench.tools.q_bridge, f"{source}/{CHANNEL}", f"--nsqd-tcp-address={broker.address}"]


def q_bridge(bench: Bench, broker: Broker, *more: str) -> Argv:
    return lambda source, destination: [*start(bench, broker, source), "--to", destination, *more]


def nsq_to_nsq(bench: Bench, broker: Broker, *more: str) -> Argv:
    program = bench.tools.nsq_to_nsq
    assert program is not None
    where = [f"-nsqd-tcp-address={broker.address}", f"-destination-nsqd-tcp-address={broker.address}"]
    return lambda source, destination: [
        program, f"-topic={source}", f"-channel={CHANNEL}", f"-destination-topic={destination}",
        *where, "-status-every=0", *more,
    ]  # fmt: skip


def bridging(
    bench: Bench, broker: Broker, name: str, argv: Argv, expected: Expected, *, ours: bool = True
) -> Contender:
    """A command that moves a channel's messages on."""

    def once(count: int) -> Run:
        source, destination = next(bench.topics), next(bench.topics)
        broker.create(source, CHANNEL)
        wanted = expected(count)
        for rest in wanted:
            broker.create(destination + rest)
        broker.fill(source, bench.events.file(count))
        queued = broker.settle(source, lambda c: c.waiting >= count).waiting
        before = broker.cpu()
        talk: Path = bench.directory / "talk"
        took = run_until(argv(source, destination), lambda: not broker.counts(source).waiting, talk)
        used = None if before is None else (broker.cpu() or before) - before
        arrived = {
            rest: broker.settle(destination + rest, lambda c, most=most: c.published >= most).published  # type: ignore[misc]
            for rest, most in wanted.items()
        }
        for topic in (source, *(destination + rest for rest in wanted)):
            broker.delete(topic)
        wrong = ""
        if queued != count:
            wrong = f"{queued:,} of {count:,} messages were queued"
        elif arrived != wanted:
            wrong = f"{sum(arrived.values()):,} messages arrived, {sum(wanted.values()):,} had to"
        return Run(count, took, used, wrong)

    return Contender(name, bench.count, once, ours)
