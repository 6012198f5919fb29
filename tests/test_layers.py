"""Imports go one way: base ← expressions ← flow ← routing; base ← formats, cli; base ← engines ← commands; no circles.
Folders and files have a limit of their size, and a name of a class has one meaning.

Every import counts, inside a function and under TYPE_CHECKING too. A folder that is not in the table below
has to be put there before it can pass.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

QTOOLS = Path(__file__).parent.parent / "qtools"

# What each room may import of qtools, beside itself. A room is a file of the base or a folder; a folder inside another
# is a room of its own where it stands here, and belongs to the folder around it where it does not.
BASE = frozenset(
    {
        "qtools", "errors", "names", "attributes", "message", "paths", "sockets", "host_port", "descriptors", "times",
        "durations", "imports", "backoff", "hard_links",
        "receive_buffer",
    }
)  # fmt: skip
COMMAND = BASE | {"cli", "flow", "formats", "expressions", "routing", "engines", "schemas"}
MAY_IMPORT: dict[str, frozenset[str]] = {
    "qtools": frozenset(),
    "errors": frozenset(),
    "names": frozenset({"errors"}),
    "attributes": frozenset({"errors"}),
    "message": frozenset({"errors", "names", "attributes"}),
    "paths": frozenset({"errors"}),
    "times": frozenset(),
    "durations": frozenset(),
    "host_port": frozenset(),
    "descriptors": frozenset(),
    "hard_links": frozenset(),
    "imports": frozenset(),
    "backoff": frozenset(),
    "receive_buffer": frozenset(),
    "sockets": frozenset({"errors", "paths", "host_port"}),
    "formats": BASE,
    "schemas": BASE | {"flow"},
    "expressions": BASE,
    "flow": BASE | {"expressions"},
    "routing": BASE | {"expressions", "flow", "formats"},
    "cli": BASE | {"engines"},
    "engines": BASE | {"engines/connections", "flow"},
    "engines/connections": BASE,
    "engines/nsq": BASE | {"engines", "engines/connections", "engines/nsq/protocol", "flow"},
    "engines/nsq/protocol": BASE,
    "engines/kafka": BASE | {"engines", "engines/connections", "flow"},
    "engines/amqp": BASE | {"engines", "engines/connections", "engines/amqp/protocol", "flow"},
    "engines/amqp/protocol": BASE,
    "engines/jetstream": BASE | {"engines", "engines/connections", "engines/jetstream/protocol", "flow"},
    "engines/jetstream/protocol": BASE,
    "engines/redis": BASE | {"engines", "engines/connections", "engines/redis/protocol", "flow"},
    "engines/redis/protocol": BASE,
    "manual": BASE | {"cli"},  # the pages of docs/, shown by `qtools help` and made into man pages by the build
    "web": BASE,
    "broker": BASE | {"engines/nsq/protocol", "cli", "web"},
    "pipe": COMMAND,
    "tail": COMMAND,
    "bridge": COMMAND,
    "to_file": COMMAND,
    "exec": COMMAND,
    "admin": COMMAND,
    "pubsub_http": COMMAND | {"web"},
    "soak": COMMAND,
    # Runs the command of a console script, whose module it names and imports late.
    "entry": frozenset({"__main__", "pipe", "tail", "bridge", "to_file", "exec", "admin", "pubsub_http", "broker"}),
    # `qtools` lists the commands and runs them.
    "__main__": BASE | {"cli", "manual", "pipe", "tail", "bridge", "to_file", "pubsub_http", "broker", "soak"},
}

# One file of a room may do what the room may not, each for its reason.
ALSO: dict[str, frozenset[str]] = {
    # turns the shared flags into conditions of an end and a filter
    "cli/options.py": frozenset({"flow", "expressions"}),
    # decides which engine serves a URL
    "engines/choice.py": frozenset(
        {"engines/nsq", "engines/kafka", "engines/jetstream", "engines/redis", "engines/amqp"}
    ),
    "cli/schemas/flags.py": frozenset({"schemas"}),  # turns the flags for schemas into a decoder
    "cli/dedupe.py": frozenset({"flow", "expressions"}),  # uses the keys of flow in a thread
    "cli/consume_run.py": frozenset({"flow"}),  # puts steps before a sink
    "cli/upload_run.py": frozenset({"formats"}),  # what messages of files are read from
}

# The rooms of bytes and rules: time is an argument there, and nothing waits.
PURE = frozenset(
    {
        "engines/nsq/protocol", "engines/jetstream/protocol", "engines/redis/protocol", "engines/amqp/protocol",
        "flow", "formats", "expressions", "routing",
    }
)  # fmt: skip
IMPURE = frozenset({"asyncio", "socket", "time", "threading"})
BUT = frozenset({"flow/loop.py"})  # the one loop

# The tree of errors stands alone; this one name is no module but a switch of the compiler.
LEAF, SWITCH = "errors.py", "__future__"

# How many files a folder may hold, beside its __init__.py: one that needs more has rooms inside.
MOST_FILES = 16

# How many lines a file may have: one that needs more is cut where two subjects meet.
MOST_LINES = 400


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module or file: the longest beginning of `parts` that stands in the table, or the first part."""
    for length in range(len(parts), 0, -1):
        if (room := "/".join(parts[:length])) in MAY_IMPORT:
            return room
    return parts[0] if parts else "qtools"


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Every module that `tree` imports, with its line; `package` is where a relative import begins."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from qtools.engines import nsq` imports a module, `from qtools.names import check_topic` a name of one.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(path: str, source: str) -> list[str]:
    """What the file at `path` (from qtools/ on) imports against the rules, one line each."""
    parts = Path(path).parts
    room = room_of(parts[:-1]) if len(parts) > 1 else parts[0].removesuffix(".py").replace("__init__", "qtools")
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
            target = room_of(tuple(rest.split("."))) if is_room else "qtools"
            if target not in allowed:
                found.append(f"{path}:{line} imports {module}; {room} may not import {target}")
        elif top in IMPURE and room in PURE and path not in BUT:
            found.append(f"{path}:{line} imports {module}; {room} has no clock, no socket and no loop")
    return found


def files_imported(path: str, source: str) -> set[str]:
    """The files of qtools that the file at `path` imports, as paths from qtools/ on."""
    found: set[str] = set()
    for _, module in imported(ast.parse(source), ("qtools", *Path(path).parts[:-1])):
        parts = module.split(".")
        for length in (len(parts), len(parts) - 1):
            name = "/".join(parts[1:length]) + ".py"
            if parts[0] == "qtools" and name in FILES and name != path:
                found.add(name)
                break
    return found


FILES = sorted(str(path.relative_to(QTOOLS)) for path in QTOOLS.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_what_its_layer_may(path: str) -> None:
    assert violations(path, (QTOOLS / path).read_text()) == []


def test_every_folder_is_in_a_layer() -> None:
    folders = {path.name for path in QTOOLS.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders <= MAY_IMPORT.keys()
    assert {"engines", "flow", "broker", "cli", "pipe", "tail"} <= folders


def test_no_folder_holds_too_many_files() -> None:
    counts = Counter(str(Path(path).parent) for path in FILES if not path.endswith("__init__.py"))
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("path", FILES)
def test_no_file_is_too_long(path: str) -> None:
    assert len((QTOOLS / path).read_text().splitlines()) <= MOST_LINES


def public_classes(source: str) -> list[str]:
    return [
        node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def test_a_name_of_a_class_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path in FILES:
        for name in public_classes((QTOOLS / path).read_text()):
            places.setdefault(name, []).append(path)
    assert len(places) > 300  # the classes were found
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_two_files_import_each_other() -> None:
    imports = {path: files_imported(path, (QTOOLS / path).read_text()) for path in FILES}
    assert len(imports["pipe/app.py"]) > 5  # the graph is there
    pairs = {frozenset({a, b}) for a, others in imports.items() for b in others if a in imports[b]}
    assert pairs == set()


NAMES = re.compile(r" *((?:[a-z_0-9]+(?:\.py|/) )*[a-z_0-9]+(?:\.py|/))(?: |$)")


def named_in(folder: Path) -> set[str]:
    """The files and folders with which lines of the docstring of `folder` begin."""
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    found = filter(None, map(NAMES.match, doc.splitlines()))
    return {name.rstrip("/") for match in found for name in match[1].split()}


@pytest.mark.parametrize("folder", sorted({path.parent for path in QTOOLS.rglob("*.py")}), ids=str)
def test_a_folder_names_its_files(folder: Path) -> None:
    """Its docstring is the map of what is there."""
    there = {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py"}
    there |= {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
    assert named_in(folder) == there


def test_every_exception_is_still_needed() -> None:
    for path, more in ALSO.items():
        modules = [module for _, module in imported(ast.parse((QTOOLS / path).read_text()), ("qtools",))]
        for room in more:
            dotted = room.replace("/", ".")
            assert any(module.startswith(f"qtools.{dotted}.") for module in modules), (
                f"{path} imports no {room} any more"
            )
    for path in BUT:
        assert (QTOOLS / path).exists()


# ── the checker itself ──


def test_the_public_classes_of_a_file_are_found() -> None:
    source = "class A:\n    class Inner: ...\nclass _B: ...\n@dataclass\nclass C(A): ...\ndef f():\n    class D: ..."
    assert public_classes(source) == ["A", "C"]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "import os"),
        ("errors.py", "from qtools.names import EPHEMERAL"),
        ("__init__.py", "from qtools.errors import QtoolsError"),
        ("names.py", "from qtools.message import Message"),
        ("paths.py", "from qtools.engines.nsq.address import Address"),
        ("engines/nsq/protocol/frames.py", "import qtools.engines.nsq.connection"),
        ("engines/nsq/protocol/frames.py", "from qtools.engines.nsq import connection"),
        ("engines/nsq/protocol/frames.py", "from qtools.engines import nsq"),
        ("engines/nsq/protocol/frames.py", "from qtools import names, flow"),
        ("engines/nsq/protocol/frames.py", "from .. import connection"),
        ("engines/nsq/protocol/frames.py", "from ... import nsq"),
        ("engines/nsq/protocol/frames.py", "def late():\n    from qtools.broker.core.store import Store"),
        ("engines/nsq/protocol/frames.py", "if TYPE_CHECKING:\n    from qtools.broker.core.store import Store"),
        (
            "engines/nsq/protocol/frames.py",
            "import importlib\nimportlib.import_module('qtools.engines.nsq.http_client')",
        ),
        ("engines/nsq/protocol/frames.py", "__import__('qtools.flow.loop')"),
        ("engines/nsq/protocol/deeper/still.py", "from .....flow import loop"),
        ("engines/nsq/protocol/frames.py", "import asyncio"),
        ("engines/nsq/protocol/frames.py", "import time as clock"),
        ("engines/nsq/protocol/frames.py", "from time import monotonic"),
        ("engines/nsq/protocol/frames.py", "def late():\n    import asyncio.streams"),
        ("flow/lines.py", "from socket import socket"),
        ("flow/lines.py", "import os, threading"),
        ("flow/lines.py", "from qtools.engines.nsq.protocol import commands"),
        ("flow/loop.py", "from qtools.engines.nsq.consume.consumer import Consumer"),
        ("cli/types.py", "from qtools.engines.nsq.address import Address"),
        ("cli/options.py", "from qtools.broker.options import Options"),
        ("engines/nsq/connection.py", "from qtools.broker.local_broker import start"),
        ("engines/nsq/connection.py", "from qtools.routing.routes import Route"),
        ("broker/tcp/client_connection.py", "from qtools.engines.nsq.address import Address"),
        ("broker/tcp/client_connection.py", "from qtools.flow.gather import Gather"),
        ("pipe/command.py", "from qtools.tail.options import Options"),
        ("pipe/command.py", "from qtools.engines.nsq.protocol.commands import mpub"),
        ("pipe/command.py", "from qtools.broker.local_broker import start"),
        ("tail/app.py", "import qtools.__main__"),
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
            "engines/nsq/protocol/frames.py",
            "import struct, zlib\nfrom qtools.errors import ProtocolError\nfrom qtools.receive_buffer import Buffer",
        ),
        (
            "engines/nsq/protocol/frames.py",
            "from qtools import __version__\nfrom qtools.engines.nsq.protocol import frames\nfrom . import commands",
        ),
        ("flow/loop.py", "import asyncio, time"),
        (
            "engines/nsq/connection.py",
            "import asyncio, socket\nfrom qtools.engines.nsq.protocol.session import ClientSession",
        ),
        ("broker/command.py", "from qtools.cli.program import program\nfrom qtools.engines.nsq.protocol import frames"),
        ("cli/options.py", "from qtools.engines.contract import EndConditions"),
        (
            "pipe/app.py",
            "from qtools.engines.contract import Publisher\nimport qtools.flow.loop\nimport qtools",
        ),
        ("__main__.py", "from qtools.cli.program import program\nimport importlib\nimportlib.import_module(name)"),
    ],
)
def test_the_checker_lets_pass_what_may_be(path: str, source: str) -> None:
    assert violations(path, source) == []
