"""q-admin top: flags → Top."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from qtools.admin import flags
from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.types import Duration
from qtools.errors import UsageError


@program(
    "q-admin top",
    epilog="""
\b
Keys:
  up, down, j, k   select             s        sort by name, depth, in flight, rate
  enter            channels           /        show topics with this in their name
  escape           back               space    stop and go on
  v                look at messages   p        pause or resume, after a question
  q                quit

\b
Examples:
  q-admin top
  q-admin top 'orders*' --sort depth --broker kafka://k1:9092
  q-admin top --once --json --interval 5s

Exit status: 0 done, 1 failed, 2 usage, 3 could not start.
""",
)
@click.argument("patterns", nargs=-1, metavar="[GLOB]...")
@click.option(
    "--interval",
    "-i",
    type=Duration(0.1),
    default="2s",
    show_default=True,
    metavar="DURATION",
    help="Ask for statistics this often.",
)
@click.option("--once", is_flag=True, help="Print a table once, after one --interval, in which rates are measured.")
@flags.sort_option("depth", "in-flight", "rate")
@click.option("--json", "as_json", is_flag=True, help="With --once: print a line of JSON for each topic.")
@flags.connection
def top(patterns: tuple[str, ...], interval: float, once: bool, sort: str, as_json: bool, **given: Any) -> int:
    """Watch topics and channels: what is left, in flight, the rate, and how it has changed.

    It needs a terminal; with --once it does not.
    """
    from qtools.admin.flags import engine_for
    from qtools.admin.top import Top
    from qtools.cli.run import run_program

    shared.set_up_logging("q-admin", given)
    if as_json and not once:
        raise UsageError("--json goes with --once")
    if not once and not (
        sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()
    ):
        raise UsageError("q-admin top needs a terminal: --once prints a table once")
    engine, _ = engine_for(given, ())
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") == "dumb"
    encoding = (sys.stdout.encoding or "").lower() if sys.stdout is not None else ""
    plain = is_plain or not encoding.startswith("utf")

    async def watch(signals: Any) -> int:
        made = Top(engine, patterns, interval=interval, sort=sort, plain=plain)
        return await (made.once(as_json=as_json) if once else made.run(signals))

    return run_program(watch)
