"""q-admin's command line: the subcommand, which has its own."""

from __future__ import annotations

import click

from qtools.cli.program import program
from qtools.errors import UsageError

# name → the module and the program in it, and what it does.
SUBCOMMANDS = {
    "topics": ("qtools.admin.topics_command:topics", "list topics with their channels, and what waits in them"),
    "show": ("qtools.admin.topics_command:show", "show one topic, or one channel"),
    "top": ("qtools.admin.top_command:top", "watch topics and channels, live"),
    "create": ("qtools.admin.change_command:create", "create a topic or a channel"),
    "delete": ("qtools.admin.change_command:delete", "delete topics or channels, with their messages"),
    "empty": ("qtools.admin.change_command:empty", "drop what waits in topics or channels"),
    "pause": ("qtools.admin.change_command:pause", "hold back the messages of topics or channels"),
    "unpause": ("qtools.admin.change_command:unpause", "deliver them again"),
}

_LIST = "\n".join(f"  {name:<10} {job}" for name, (_, job) in SUBCOMMANDS.items())


@program(
    "q-admin",
    subcommands={name: module for name, (module, _) in SUBCOMMANDS.items()},
    epilog=f"""\b
Subcommands:
{_LIST}

\b
Examples:
  q-admin topics
  q-admin topics 'orders*' --broker nsq+lookupd://10.0.0.1 --json
  q-admin top --broker kafka://k1:9092
  q-admin delete orders.test --dry-run
  q-admin empty orders/mail --yes

Exit status: 0 done, 1 failed, 2 usage, 3 could not start.
""",
)
@click.argument("words", nargs=-1, metavar="SUBCOMMAND [ARGUMENT]...")
@click.pass_context
def main(context: click.Context, words: tuple[str, ...]) -> None:
    """Look at topics and channels of a broker, and change them.

    Without --broker, that is your private local broker. Each subcommand has its own --help.
    """
    if not words:
        click.echo(context.get_help())
        return
    from difflib import get_close_matches

    near = get_close_matches(words[0], SUBCOMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SUBCOMMANDS)}"
    raise UsageError(f"there is no subcommand {words[0]!r}: {hint}")


if __name__ == "__main__":
    main()
