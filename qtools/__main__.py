"""`qtools`: lists the commands, and runs them. `qtools tail …` is `q-tail …`; `qtools help tail` shows the manual.

A command is imported only when it runs.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from qtools.cli.program import Program, program, run_with
from qtools.errors import UsageError

# name → what the command does, in one line. The module is qtools.NAME.command, with _ instead of -.
COMMANDS = {
    "admin": "list, watch and change topics and channels",
    "bridge": "send messages on to other topics: all or filtered, routed, transformed",
    "broker": "run the embedded broker; ask or stop the private local one",
    "exec": "run a command for each message",
    "pipe": "publish stdin or files to a topic",
    "pubsub-http": "serve topics over HTTP: POST, streaming GET, SSE, WebSocket, and a page",
    "soak": "test a cluster: publish numbered messages, read them, say which were lost",
    "tail": "print the messages of topics to stdout",
    "to-file": "archive topics to files",
}

_LIST = "\n".join(f"  {name:<12} {job}" for name, job in COMMANDS.items())


@program(
    "qtools",
    epilog=f"\b\nCommands:\n{_LIST}\n\n`qtools pipe --help` lists the options of q-pipe; `qtools help pipe` shows its"
    " manual, and `qtools help` lists all pages.",
)
@click.argument("command", nargs=-1, metavar="COMMAND [ARGUMENT]...")
@click.pass_context
def _qtools(context: click.Context, command: tuple[str, ...]) -> None:
    """Small commands for message queues: NSQ, Kafka, NATS JetStream, Redis Streams, RabbitMQ.

    `qtools pipe` runs `q-pipe`, and likewise for each of the commands.
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
    # The options of an unknown command are not parsed, so that the error names the command.
    _qtools.main(words[:1])


if __name__ == "__main__":
    main()
