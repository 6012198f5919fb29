"""Every message in docs/troubleshooting.md is one that the commands print: its words are in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from manual.markdown import ROOT, text

MESSAGES = re.findall(r"^### `(.*)`$", text("troubleshooting"), re.MULTILINE)


def _parts(node: ast.expr) -> Iterator[str]:
    """What a string says, with `…` for each value that is put into it; nothing for what is no string."""
    match node:
        case ast.Constant(value=str() as value):
            yield value
        case ast.JoinedStr():
            for part in node.values:
                yield from _parts(part) if isinstance(part, ast.Constant) else ("…",)
        case ast.BinOp(op=ast.Add()):
            yield from [*(list(_parts(node.left)) or ["…"]), *(list(_parts(node.right)) or ["…"])]
        case ast.IfExp():
            yield "…"


@cache
def strings() -> set[str]:
    """Every string of the source."""
    found = set()
    for path in (ROOT / "qtools").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                # A place for a value in a log message is %s or %d.
                found.add(re.sub(r"%[sd]", "…", "".join(_parts(node))))
    return found


def is_printed(message: str) -> bool:
    """Whether the source has a string with all the words of `message`, in their order, or one for each of its parts."""
    parts = [part.strip(" ;:,") for part in message.split("…")]
    words = [part for part in parts if len(part) > 6] or [part for part in parts if part]
    return all(any(word in string for string in strings()) for word in words)


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 50


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_that_the_commands_print(message: str) -> None:
    assert is_printed(message)


def test_the_check_can_fail() -> None:
    assert is_printed("the checkpoint … is in use by …")
    assert is_printed("cannot write …; nothing is acknowledged until that is over")
    assert not is_printed("the checkpoint … is being used by …")
