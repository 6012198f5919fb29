"""qtools side by side with NSQ's own tools: the same messages, one broker, in turns.

    $ python bench/compare.py                            everything
    $ python bench/compare.py pipe tail                  some of it: pipe, tail, bridge, archive, broker, kafka,
                                                     nats, rabbitmq, redis, start
    $ python bench/compare.py --nsq-bin ~/nsq/bin        NSQ's programs are there, not on PATH
    $ python bench/compare.py --json result.json         and every single run into a file

`make bench` runs it from .venv. The broker is nsqd where there is one (--nsqd, else QTOOLS_NSQD_BIN, --nsq-bin, PATH),
else q-broker; NSQ's to_nsq, nsq_tail, nsq_to_nsq and nsq_to_file take part where they are. Let nothing else keep the
machine busy: broker and client take a core each.

How it measures:
  - 200,000 records in the shape of the demo's, 190 bytes each on average, are published from a file, one a line; for
    the consumers and bridges they are queued over HTTP before those are started; a consumer's stdout is a file.
  - Every run has a topic of its own; the broker keeps it in memory. The commands take turns, A B A B, for several
    rounds, after one run each to warm up.
  - The clock runs from the start of the process to its end, or until a bridge has moved all. `whole` is that; `running`
    is without what the same command takes for a single message, so without its start. CPU is user and system time of
    the command, counted both ways too; peak is its largest resident set, which says nothing below 10 MB.
  - After each run the broker's counts, and the lines that came out, are held against what went in. A run that lost,
    added or changed a message is named and left out, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure.events import Events
from measure.processes import BenchError, NotHere, end_all, interrupt
from measure.sections import SECTIONS, Bench, Tools
from measure.table import Table

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare qtools with NSQ's own tools, side by side.",
        epilog="Exit status: 0 measured, 1 a run lost or changed messages or failed, 2 usage, 130 interrupted.",
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all of them")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--count", type=positive, default=200_000, metavar="N", help="messages; default: %(default)s")
    parser.add_argument(
        "--slow-count", type=positive, default=20_000, metavar="N", help="for to_nsq; default: %(default)s"
    )
    parser.add_argument(
        "--size", type=positive, default=190, metavar="BYTES", help="of a message; default: %(default)s"
    )
    parser.add_argument("--nsqd", metavar="FILE", help="a real nsqd; default: QTOOLS_NSQD_BIN, or the one found")
    parser.add_argument("--nsq-bin", metavar="DIR", help="where NSQ's own programs are; default: PATH")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a running Kafka; default: one is started, with Java")
    parser.add_argument("--rabbitmq", metavar="HOST:PORT", help="a running RabbitMQ; default: one is started")
    parser.add_argument("--qtools-bin", metavar="DIR", help="where ours are; default: beside this python, else PATH")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    given = parser.parse_args(argv)
    for section in given.sections:
        if section not in SECTIONS:
            parser.error(f"no section {section!r}: there are {', '.join(SECTIONS)}")
    return given


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def find(program: str, directory: str | None) -> str | None:
    """The program in `directory`, or where that is not given on PATH."""
    return shutil.which(program, path=directory)


def find_tools(given: argparse.Namespace) -> Tools:
    beside = given.qtools_bin or str(Path(sys.executable).parent)

    def ours(name: str) -> str:
        found = find(name, beside) or (None if given.qtools_bin else find(name, None))
        if not found:
            raise BenchError(f"no {name} in {beside}: install qtools there, or name its place with --qtools-bin")
        return found

    named = given.nsqd or os.environ.get("QTOOLS_NSQD_BIN")
    nsqd = shutil.which(named) if named else find("nsqd", given.nsq_bin)
    if named and not nsqd:
        raise BenchError(f"no program {named}: name an nsqd with --nsqd or QTOOLS_NSQD_BIN")
    return Tools(
        q_pipe=ours("q-pipe"),
        q_tail=ours("q-tail"),
        q_bridge=ours("q-bridge"),
        q_to_file=ours("q-to-file"),
        q_broker=ours("q-broker"),
        nsqd=nsqd,
        to_nsq=find("to_nsq", given.nsq_bin),
        nsq_tail=find("nsq_tail", given.nsq_bin),
        nsq_to_nsq=find("nsq_to_nsq", given.nsq_bin),
        nsq_to_file=find("nsq_to_file", given.nsq_bin),
    )


def say(text: str) -> None:
    """What happens now, on a terminal only: in a log it would be a hundred lines of nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def compare(given: argparse.Namespace, directory: Path) -> list[Table]:
    tools = find_tools(given)
    names = ("nsqd", "to_nsq", "nsq_tail", "nsq_to_nsq", "nsq_to_file")
    missing = [name for name in names if getattr(tools, name) is None]
    load = os.getloadavg()[0]  # well above 0 before anything was started: somebody else is measured too
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}"
    print(f"{machine}, Python {platform.python_version()}")
    if missing:
        print(f"not here, so not compared: {', '.join(missing)} (see --nsq-bin)")
    say("making the messages")
    events = Events(directory, max(given.count, given.slow_count), given.size)
    bench = Bench(
        tools=tools,
        directory=directory,
        events=events,
        count=given.count,
        slow_count=min(given.slow_count, given.count),
        size=given.size,
        rounds=given.rounds,
        say=say,
        kafka=given.kafka,
        rabbitmq=given.rabbitmq,
    )
    tables = []
    for section in dict.fromkeys(given.sections or SECTIONS):
        try:
            measured = SECTIONS[section](bench)
        except NotHere as error:
            if section in given.sections:
                raise
            print(f"\n{section}: not compared: {error}", flush=True)
            continue
        for table in measured:
            say("")
            print("", *table.lines(), sep="\n", flush=True)
            tables.append(table)
    return tables


def as_json(given: argparse.Namespace, tables: list[Table]) -> dict[str, Any]:
    return {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
        "asked": {name: getattr(given, name) for name in ("rounds", "count", "slow_count", "size")},
        "tables": [table.as_json() for table in tables],
    }


def main() -> int:
    given = parse()
    for number in ENDING:
        signal.signal(number, interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="qbench.") as directory:
            try:
                tables = compare(given, Path(directory))
            finally:
                for number in ENDING:
                    signal.signal(number, signal.SIG_IGN)  # what is left to do takes no time, and has to be done
                end_all()
    except BenchError as error:
        say("")
        print(f"compare.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("")
        print("compare.py: interrupted", file=sys.stderr)
        return 130
    if given.json:
        given.json.write_text(json.dumps(as_json(given, tables), indent=2) + "\n")
    return 0 if all(table.right() for table in tables) else 1


if __name__ == "__main__":
    sys.exit(main())
