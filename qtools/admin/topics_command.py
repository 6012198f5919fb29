"""q-admin topics and q-admin show: flags → statistics → text or JSON."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from qtools.admin import flags
from qtools.cli import options as shared
from qtools.cli.program import program


@program(
    "q-admin topics",
    epilog="""
\b
Examples:
  q-admin topics
  q-admin topics 'orders*' --channels --sort depth
  q-admin topics --broker kafka://k1:9092 --json | jq -r 'select(.waiting > 1000) | .topic'

Exit status: 0 done, also if no topic matches; 1 failed, 2 usage, 3 could not start.
""",
)
@click.argument("patterns", nargs=-1, metavar="[GLOB]...")
@click.option("--channels", "-c", is_flag=True, help="Print a line for each channel too.")
@flags.sort_option("depth", "in-flight", "messages")
@flags.json_option
@flags.connection
def topics(patterns: tuple[str, ...], channels: bool, sort: str, as_json: bool, **given: Any) -> int:
    """List topics, and what waits in them.

    LEFT is what is not finished (waiting, in flight or deferred) in the channel that has most, or what waits in a topic
    without channels. A - stands for what the engine does not tell.
    """
    from qtools.admin.flags import engine_for
    from qtools.admin.listing import print_topics
    from qtools.cli.run import run_program

    shared.set_up_logging("q-admin", given)
    engine, _ = engine_for(given, ())
    width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else 0
    return run_program(
        lambda _: print_topics(engine, patterns, channels=channels, sort=sort, as_json=as_json, width=width)
    )


@program(
    "q-admin show",
    epilog="""
\b
Examples:
  q-admin show orders
  q-admin show nsq://10.0.0.5/orders/mail --json

Exit status: 0 done, 1 if there is no such topic or channel, 2 usage, 3 could not start.
""",
)
@click.argument("name", metavar="TOPIC[/CHANNEL]")
@flags.json_option
@flags.connection
def show(name: str, as_json: bool, **given: Any) -> int:
    """Show everything that is known about a topic, or about one of its channels."""
    from qtools.admin.flags import engine_for, subscriptions_of
    from qtools.admin.listing import print_one
    from qtools.cli.run import run_program

    shared.set_up_logging("q-admin", given)
    engine, names = engine_for(given, (name,))
    [chosen] = subscriptions_of(engine, names)
    return run_program(lambda _: print_one(engine, chosen, as_json=as_json))
