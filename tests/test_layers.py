"""Imports go one way: base ← protocol ← client, broker; base ← flow; base ← cli; a command on top of them.

Every import counts, inside a function and under TYPE_CHECKING too. A folder that is not in the table below
has to be put there before it can pass.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

QTOOLS = Path(__file__).parent.parent / "qtools"

# What each room may import of qtools, beside itself. "qtools" is the package's own __init__: the version.
BASE = frozenset({"qtools", "errors", "names", "message", "places", "listen", "times", "imports"})
COMMAND = BASE | {"cli", "flow", "client"}
MAY_IMPORT: dict[str, frozenset[str]] = {
    "qtools": frozenset(),
    "errors": frozenset(),
    "names": frozenset({"errors"}),
    "message": frozenset({"errors", "names"}),
    "places": frozenset({"errors"}),
    "times": frozenset(),
    "imports": frozenset(),
    "listen": frozenset({"errors", "places"}),
    "protocol": BASE,
    "flow": BASE,
    "cli": BASE,
    "client": BASE | {"protocol"},
    "web": BASE,
    "broker": BASE | {"protocol", "cli", "web"},
    "pipe": COMMAND,
    "tail": COMMAND,
    "bridge": COMMAND,
    "to_file": COMMAND,
    "pubsub_http": COMMAND | {"web"},
    "manual": BASE | {"cli"},  # the pages of docs/, shown by `qtools help` and made into man pages by the build
    # Runs the command of a console script, whose module it names and imports late.
    "entry": frozenset({"__main__", "pipe", "tail", "bridge", "to_file", "pubsub_http", "broker"}),
    # `qtools` lists the commands and runs them.
    "__main__": BASE | {"cli", "manual", "pipe", "tail", "bridge", "to_file", "pubsub_http", "broker"},
}

# One file of a room may do what the room may not, each for its reason.
ALSO: dict[str, frozenset[str]] = {
    "cli/options.py": frozenset({"client", "flow"}),  # turns the shared flags into the client's settings and a filter
    "cli/dedupe.py": frozenset({"flow"}),  # asks the keys of flow in a thread
}

# The rooms of bytes and rules: time is an argument there, and nothing waits.
PURE = frozenset({"protocol", "flow"})
IMPURE = frozenset({"asyncio", "socket", "time", "threading"})
BUT = frozenset({"flow/run.py"})  # the one loop

# The tree of errors stands alone; this one name is no module but a switch of the compiler.
LEAF, SWITCH = "errors.py", "__future__"


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Every module that `tree` imports, with its line; `package` is where a relative import begins."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from qtools import client` imports a module, `from qtools.names import check_topic` a name of one.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(path: str, source: str) -> list[str]:
    """What the file at `path` (from qtools/ on) imports against the rules, one line each."""
    parts = Path(path).parts
    room = parts[0] if len(parts) > 1 else parts[0].removesuffix(".py").replace("__init__", "qtools")
    if room not in MAY_IMPORT:
        return [f"{path}: {room!r} is in no layer; put it into the table of tests/test_layers.py"]
    allowed = MAY_IMPORT[room] | ALSO.get(path, frozenset()) | {room}
    found: list[str] = []
    for line, module in imported(ast.parse(source), ("qtools", *parts[:-1])):
        top, _, rest = module.partition(".")
        if path == LEAF and top != SWITCH:
            found.append(f"{path}:{line} imports {module}; it imports nothing")
        elif top == "qtools":
            second = rest.partition(".")[0]
            is_room = second in MAY_IMPORT or (second and (QTOOLS / second).is_dir())
            target = second if is_room else "qtools"
            if target not in allowed:
                found.append(f"{path}:{line} imports {module}; {room} may not import {target}")
        elif top in IMPURE and room in PURE and path not in BUT:
            found.append(f"{path}:{line} imports {module}; {room} has no clock, no socket and no loop")
    return found


FILES = sorted(str(path.relative_to(QTOOLS)) for path in QTOOLS.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_what_its_layer_may(path: str) -> None:
    assert violations(path, (QTOOLS / path).read_text()) == []


def test_every_folder_is_in_a_layer() -> None:
    folders = {path.name for path in QTOOLS.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders <= MAY_IMPORT.keys()
    assert {"protocol", "flow", "client", "broker", "cli", "pipe", "tail"} <= folders


def test_every_exception_is_still_needed() -> None:
    for path, more in ALSO.items():
        modules = [module for _, module in imported(ast.parse((QTOOLS / path).read_text()), ("qtools",))]
        for room in more:
            assert any(module.startswith(f"qtools.{room}.") for module in modules), f"{path} imports no {room} any more"
    for path in BUT:
        assert (QTOOLS / path).exists()


# ── the checker itself ──


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "import os"),
        ("errors.py", "from qtools.names import EPHEMERAL"),
        ("__init__.py", "from qtools.errors import QtoolsError"),
        ("names.py", "from qtools.message import Message"),
        ("places.py", "from qtools.client.address import Address"),
        ("protocol/frames.py", "import qtools.client.connection"),
        ("protocol/frames.py", "from qtools.client import connection"),
        ("protocol/frames.py", "from qtools import client"),
        ("protocol/frames.py", "from qtools import names, flow"),
        ("protocol/frames.py", "from ..client import connection"),
        ("protocol/frames.py", "from .. import client"),
        ("protocol/frames.py", "def late():\n    from qtools.broker.store import Store"),
        ("protocol/frames.py", "if TYPE_CHECKING:\n    from qtools.broker.store import Store"),
        ("protocol/frames.py", "import importlib\nimportlib.import_module('qtools.client.http')"),
        ("protocol/frames.py", "__import__('qtools.flow.run')"),
        ("protocol/deeper/still.py", "from ...flow import run"),
        ("protocol/frames.py", "import asyncio"),
        ("protocol/frames.py", "import time as clock"),
        ("protocol/frames.py", "from time import monotonic"),
        ("protocol/frames.py", "def late():\n    import asyncio.streams"),
        ("flow/lines.py", "from socket import socket"),
        ("flow/lines.py", "import os, threading"),
        ("flow/lines.py", "from qtools.protocol import commands"),
        ("flow/run.py", "from qtools.client.consumer import Consumer"),
        ("cli/types.py", "from qtools.client.address import Address"),
        ("cli/options.py", "from qtools.broker.options import Options"),
        ("client/connection.py", "from qtools.broker.local import start"),
        ("client/connection.py", "from qtools.flow.contract import Sink"),
        ("broker/tcp.py", "from qtools.client.address import Address"),
        ("broker/tcp.py", "from qtools.flow.gather import Gather"),
        ("pipe/command.py", "from qtools.tail.options import Options"),
        ("pipe/command.py", "from qtools.protocol.commands import mpub"),
        ("pipe/command.py", "from qtools.broker.local import start"),
        ("tail/work.py", "import qtools.__main__"),
        ("sort/command.py", "from qtools.cli.program import program"),
        ("extra.py", ""),
    ],
)
def test_the_checker_finds_a_planted_violation(path: str, source: str) -> None:
    (found,) = violations(path, source)
    assert found.startswith(path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "from __future__ import annotations"),
        (
            "protocol/frames.py",
            "import struct, zlib\nfrom qtools.errors import ProtocolError\nfrom .inbox import Inbox",
        ),
        (
            "protocol/frames.py",
            "from qtools import __version__\nfrom qtools.protocol import commands\nfrom . import inbox",
        ),
        ("flow/run.py", "import asyncio, time"),
        ("client/connection.py", "import asyncio, socket\nfrom qtools.protocol.session import Session"),
        ("broker/command.py", "from qtools.cli.program import program\nfrom qtools.protocol import reader"),
        ("cli/options.py", "from qtools.client.settings import Settings"),
        (
            "pipe/work.py",
            "from qtools.client.publisher import Publisher\nfrom qtools.flow.run import run\nimport qtools",
        ),
        ("__main__.py", "from qtools.cli.program import program\nimport importlib\nimportlib.import_module(name)"),
    ],
)
def test_the_checker_lets_pass_what_may_be(path: str, source: str) -> None:
    assert violations(path, source) == []
