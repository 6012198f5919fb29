"""The subcommands of q-broker, which do not run a broker. In: flags. Out: lines on stdout, an exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import click


def _tell(answer: tuple[int, list[str]]) -> int:
    status, lines = answer
    for line in lines:
        click.echo(line)
    return status


@click.command("status")
@click.pass_context
def status(context: click.Context, /) -> None:
    """Show your private local broker: its process, sockets, topics and depths.

    Exit status 1 when it is not running.
    """
    from qtools.broker import control

    context.exit(_tell(control.status()))


@click.command("stop")
@click.option("--force", is_flag=True, help="Stop it even if it does not answer.")
@click.pass_context
def stop(context: click.Context, /, force: bool) -> None:
    """Stop your private local broker in order, and wait for its end."""
    from qtools.broker import control

    context.exit(_tell(control.stop(force)))


@click.command("check")
@click.argument("directory", type=click.Path(path_type=Path))
def check(*, directory: Path) -> None:
    """Read everything in a data directory, and show what is damaged. Changes no message.

    Exit status 0 without damage, 1 when something is damaged. A broker may be using DIRECTORY.

    \b
    Example:
        q-broker check ~/.local/state/qtools/q-broker
    """
    from qtools.broker.disk.integrity import check as checks

    sys.exit(0 if checks.check(directory, click.echo) else 1)
