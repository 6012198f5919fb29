"""`qtools`: lists the commands, and runs them: `qtools tail …` is `q-tail …`; `qtools help tail` shows the manual.

A command is imported when it is run.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from qtools.cli.program import Program, program, run_with
from qtools.errors import UsageError

# name → its job in a line; it lives in qtools.NAME.command, with _ for -
COMMANDS = {
    "bridge": "send messages on to other topics: copied, filtered, routed, reshaped",
    "broker": "run the embedded broker; ask or stop the private local one",
    "pipe": "publish stdin or files to a topic",
    "pubsub-http": "serve topics over HTTP: POST, streaming GET, SSE, WebSocket, and a page",
    "tail": "print the messages of topics to stdout",
    "to-file": "archive topics to files",
}

_LIST = "\n".join(f"  {name:<12} {job}" for name, job in COMMANDS.items())


@program(
    "qtools",
    epilog=f"\b\nCommands:\n{_LIST}\n\n`qtools pipe --help` lists the options of one; `qtools help pipe` shows its"
    " manual, and `qtools help` lists all pages.",
)
@click.argument("command", nargs=-1, metavar="COMMAND [ARGUMENT]...")
@click.pass_context
def _qtools(context: click.Context, command: tuple[str, ...]) -> None:
    """Small commands for message queues. They speak NSQ.

    `qtools pipe` is `q-pipe`, and so for each of them.
    """
    if not command:
        click.echo(context.get_help())
        return
    from difflib import get_close_matches

    near = get_close_matches(command[0].removeprefix("q-"), COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    raise UsageError(f"there is no command {command[0]!r}: {hint}")


def main() -> None:
    """The console script."""
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        command: Program = import_module(f"qtools.{words[0].replace('-', '_')}.command").main
        run_with(command, words[1:])
    if words and words[0] == "help":
        run_with(import_module("qtools.manual.help").main, words[1:])
    # An unknown command's own options are not ours to judge.
    _qtools.main(words[:1])


if __name__ == "__main__":
    main()
