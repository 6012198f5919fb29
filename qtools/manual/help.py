"""`qtools help [PAGE]`: prints a page of the manual, through a pager on a terminal, plain into a pipe.

It does not run man: a page of the documentation that is no man page is shown as well, and containers often have no man.
"""

from __future__ import annotations

import os
import shutil
import sys

import click

from qtools.cli.program import program
from qtools.errors import UsageError
from qtools.manual import pages
from qtools.manual.document import parse
from qtools.manual.text import page_text

_WIDEST = 100  # longer lines are hard to read


@program(
    "qtools help",
    epilog="\b\nExamples:\n  qtools help tail\n  qtools help troubleshooting\n  qtools help recipes | less",
)
@click.argument("page", required=False)
def main(page: str | None) -> None:
    """Show PAGE of the manual: of a command (tail, or q-tail) or about a subject. Without PAGE, list them."""
    if page is None:
        _print("".join(f"{name:<16} {pages.subject(pages.read(name))}\n" for name in pages.names()))
        return
    name = _page_name(page)
    styled = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    _print(page_text(parse(pages.read(name)), min(shutil.get_terminal_size().columns, _WIDEST), styled))


def _page_name(asked: str) -> str:
    known = pages.names()
    for name in (f"q-{asked}", f"qtools-{asked}", asked, asked.removesuffix(".md")):
        if name in known:
            return name
    from difflib import get_close_matches

    near = get_close_matches(asked.removeprefix("q-"), [name.removeprefix("q-") for name in known], 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise UsageError(f"there is no page {asked!r}: {hint}")


def _print(text: str) -> None:
    if sys.stdout.isatty():
        click.echo_via_pager(text, color=True)
    else:
        click.echo(text, nl=False)
