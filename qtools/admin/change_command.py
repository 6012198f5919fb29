"""q-admin create, delete, empty, pause, unpause: flags → changes."""

from __future__ import annotations

import sys
from typing import Any

import click

from qtools.admin import flags
from qtools.cli import options as shared
from qtools.cli.program import program

_names = click.argument("names", nargs=-1, required=True, metavar="TOPIC[/CHANNEL]...")
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and how much would go; do nothing.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask. It is needed where no terminal is there to ask on.")
_STATUS = "Exit status: 0 done, 1 failed, not confirmed, or no such topic or channel, 2 usage, 3 could not start."


def _run(action: str, names: tuple[str, ...], given: dict[str, Any], **more: Any) -> int:
    from qtools.admin.changes import change
    from qtools.admin.flags import engine_for, subscriptions_of
    from qtools.cli.run import run_program

    show = shared.set_up_logging("q-admin", given)
    engine, words = engine_for(given, names)
    chosen = subscriptions_of(engine, words)
    asks = not more.pop("yes", True)
    can_ask = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    return run_program(
        lambda signals: change(engine, action, chosen, signals, asks=asks, can_ask=can_ask, show=show, **more)
    )


@program("q-admin create", epilog=f"\b\nExamples:\n  q-admin create orders/mail\n\n{_STATUS}")
@_names
@shared.create_topics_option
@_dry_run
@flags.connection
def create(names: tuple[str, ...], dry_run: bool, **given: Any) -> int:
    """Create topics, and channels.

    A channel that exists before the first message gets that message. --create-topics gives the number of partitions and
    replicas, with engines that have them.
    """
    if given["create_topics"] is None:
        given["create_topics"] = "default"
    new = shared.new_topics_of(given)
    return _run("create", names, given, dry_run=dry_run, new=new)


@program("q-admin delete", epilog=f"\b\nExamples:\n  q-admin delete orders.test orders/old --dry-run\n\n{_STATUS}")
@_names
@_dry_run
@_yes
@flags.connection
def delete(names: tuple[str, ...], dry_run: bool, yes: bool, **given: Any) -> int:
    """Delete topics with all their channels and messages, or single channels with what waits in them."""
    return _run("delete", names, given, dry_run=dry_run, yes=yes)


@program("q-admin empty", epilog=f"\b\nExamples:\n  q-admin empty orders/mail --yes\n\n{_STATUS}")
@_names
@_dry_run
@_yes
@flags.connection
def empty(names: tuple[str, ...], dry_run: bool, yes: bool, **given: Any) -> int:
    """Drop what waits in channels, or in topics.

    What waits in a topic of NSQ is what it keeps for its first channel. In Kafka these are all messages of the topic;
    to empty a channel is to commit the end of its topic, and needs a group without members.
    """
    return _run("empty", names, given, dry_run=dry_run, yes=yes)


@program("q-admin pause", epilog=f"\b\nExamples:\n  q-admin pause orders/mail\n\n{_STATUS}")
@_names
@_dry_run
@flags.connection
def pause(names: tuple[str, ...], dry_run: bool, **given: Any) -> int:
    """Hold back the messages of channels, or of whole topics, until they are resumed with unpause."""
    return _run("pause", names, given, dry_run=dry_run)


@program("q-admin unpause", epilog=f"\b\nExamples:\n  q-admin unpause orders/mail\n\n{_STATUS}")
@_names
@_dry_run
@flags.connection
def unpause(names: tuple[str, ...], dry_run: bool, **given: Any) -> int:
    """Deliver the messages of paused channels, or of paused topics, again."""
    return _run("unpause", names, given, dry_run=dry_run)
