"""Which names of uvicorn qtools/web relies on. A failure says what an upgrade has changed.

The protocol classes override methods of uvicorn, and use its attributes, that it does not promise to keep. When a test
here fails with a new version: compare the named part of uvicorn with what qtools/web does with it, mend both, and run
tests/web, tests/broker and tests/pubsub_http. Then raise the cap in pyproject.toml.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import tomllib
from asyncio import sslproto
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from qtools.web.http_connection import HttpConnection
from qtools.web.tracked_transport import TrackedTransport
from qtools.web.websocket import WebSocket

ROOT = Path(__file__).parent.parent.parent
VERSION = f"uvicorn {uvicorn.__version__}"

# Methods that are overridden or called, with the parameters that they had when this was written.
METHODS: dict[type, dict[str, str]] = {
    HttpToolsProtocol: {
        "__init__": "self, config, server_state, app_state, _loop",
        "connection_made": "self, transport",
        "connection_lost": "self, exc",
        "eof_received": "self",
        "data_received": "self, data",
        "pause_writing": "self",
        "resume_writing": "self",
        "on_message_begin": "self",
        "on_header": "self, name, value",
        "on_headers_complete": "self",
        "on_body": "self, body",
        "on_message_complete": "self",
        "on_response_complete": "self",
        "shutdown": "self",
        "_should_upgrade": "self",
        "_start_asgi_task": "self, cycle, app",
    },
    FlowControl: {
        "__init__": "self, transport",
        "pause_reading": "self",
        "resume_reading": "self",
        "pause_writing": "self",
        "resume_writing": "self",
    },
    WebSocketsSansIOProtocol: {
        "__init__": "self, config, server_state, app_state, _loop",
        "connection_made": "self, transport",
        "connection_lost": "self, exc",
        "eof_received": "self",
        "data_received": "self, data",
        "pause_writing": "self",
        "resume_writing": "self",
        "receive": "self",
        "send": "self, message",
        "shutdown": "self",
        "handle_connect": "self, event",
        "handle_cont": "self, event",
        "handle_ping": "self",
        "handle_pong": "self, event",
        "start_keepalive": "self",
        "schedule_ping": "self",
        "send_keepalive_ping": "self",
    },
}
# Attributes that are used, of an object with a connection. `url`, `headers` and `scope` are those of a request.
ATTRIBUTES: dict[type, set[str]] = {
    HttpToolsProtocol: {
        "app_state", "config", "connections", "cycle", "flow", "headers", "loop", "parser", "pipeline", "scheme",
        "scope", "server_state", "transport", "url", "ws_protocol_class",
    },
    RequestResponseCycle: {
        "body", "chunked_encoding", "disconnected", "expected_content_length", "keep_alive", "message_event",
        "more_body", "response_complete", "response_started", "scope", "waiting_for_100_continue",
    },
    FlowControl: {"read_paused", "write_paused"},
    WebSocketsSansIOProtocol: {
        "close_sent", "close_timeout", "conn", "disconnected", "frames", "handshake_complete", "handshake_initiated",
        "loop", "pending_ping_payload", "ping_interval", "ping_timer", "queue", "read_paused", "transport", "writable",
    },
    ServerState: {"connections", "tasks"},
}  # fmt: skip
# `response` and `scope` of a WebSocket exist after its handshake only.
SET_BY_HANDLE_CONNECT = {"response", "scope"}
CONFIG = {
    "app", "http", "ws", "ws_max_size", "ws_ping_interval", "ws_ping_timeout", "ws_per_message_deflate", "lifespan",
    "log_config", "access_log", "proxy_headers", "interface",
}  # fmt: skip
# Calls inside of uvicorn that have to reach our methods and attributes: (method of uvicorn, what it does).
INNER_CALLS = {
    HttpToolsProtocol.on_headers_complete: [
        "self.pipeline.appendleft((self.cycle, app))",
        "self._start_asgi_task(self.cycle, app)",
        "on_response=self.on_response_complete",
        "existing_cycle.response_complete",
    ],
    HttpToolsProtocol.on_body: ["self.cycle.body +=", "self.cycle.message_event.set()"],
    HttpToolsProtocol.on_message_complete: ["self.cycle.more_body = False", "self.cycle.message_event.set()"],
    HttpToolsProtocol.connection_lost: ["self.cycle.disconnected = True", "self.cycle.message_event.set()"],
    HttpToolsProtocol.shutdown: ["self.cycle.keep_alive = False", "self.transport.close()"],
    RequestResponseCycle.send: ["name.lower()", 'name == b"content-length"', "self.on_response()"],
    RequestResponseCycle.receive: ["self.flow.resume_reading()", "self.message_event.wait()"],
    WebSocketsSansIOProtocol.data_received: ["self.conn.receive_data(data)", "self.handle_events()"],
    WebSocketsSansIOProtocol.handle_events: [
        "self.handle_ping()",
        "self.handle_pong(event)",
        "self.handle_cont(event)",
    ],
    WebSocketsSansIOProtocol.handle_connect: ["self.response = ", "self.handshake_initiated = True"],
    WebSocketsSansIOProtocol.send_keepalive_ping: ["self.schedule_ping()"],
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Never called."""


def config() -> Config:
    made = Config(app, http="httptools", ws=WebSocket, lifespan="off", log_config=None)
    made.load()
    return made


class NoSocket(asyncio.Transport):
    """A transport without a socket."""

    def is_closing(self) -> bool:
        return True


async def objects() -> dict[type, object]:
    """An object of each class, as it is once a request has come."""
    state = ServerState()
    http = HttpToolsProtocol(config(), state, {})
    http.connection_made(NoSocket())
    http.on_message_begin()
    websocket = WebSocketsSansIOProtocol(config(), state, {})
    websocket.connection_made(NoSocket())
    cycle = RequestResponseCycle(
        scope=http.scope, transport=http.transport, flow=http.flow, logger=http.logger, access_log=False,
        access_logger=http.access_logger, default_headers=[], message_event=asyncio.Event(), expect_100_continue=False,
        keep_alive=True, on_response=lambda: None,
    )  # fmt: skip
    return {
        HttpToolsProtocol: http,
        RequestResponseCycle: cycle,
        FlowControl: http.flow,
        WebSocketsSansIOProtocol: websocket,
        ServerState: state,
    }


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def test_the_installed_version_is_within_the_cap() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (wanted,) = [line for line in dependencies if line.startswith("uvicorn")]
    bounds = re.fullmatch(r"uvicorn>=([\d.]+),<([\d.]+)", wanted)
    assert bounds, f"pyproject.toml has {wanted!r}: uvicorn needs a lower bound and a cap"
    assert numbers(bounds[1]) <= numbers(uvicorn.__version__) < numbers(bounds[2]), f"{VERSION} is not {wanted}"


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner, names in METHODS.items() for name in names],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_a_method_has_the_parameters_that_are_relied_on(owner: type, name: str) -> None:
    method = getattr(owner, name, None)
    assert method is not None, f"{VERSION}: {owner.__name__}.{name} is gone, and qtools/web overrides or calls it"
    found = ", ".join(inspect.signature(method).parameters)
    assert found == METHODS[owner][name], (
        f"{VERSION}: {owner.__name__}.{name} takes ({found}), and qtools/web expects ({METHODS[owner][name]})"
    )


async def test_the_attributes_that_are_relied_on_exist() -> None:
    gone = [
        f"{VERSION}: {owner.__name__}.{name} is gone, and qtools/web uses it"
        for owner, made in (await objects()).items()
        for name in sorted(ATTRIBUTES.get(owner, ()))
        if not hasattr(made, name)
    ]
    assert gone == []


def test_the_settings_that_are_relied_on_exist() -> None:
    gone = CONFIG - inspect.signature(Config).parameters.keys()
    assert not gone, f"{VERSION}: Config does not take {sorted(gone)} any more"


@pytest.mark.parametrize("method", INNER_CALLS, ids=lambda one: one.__qualname__)
def test_uvicorn_calls_what_is_overridden(method: Any) -> None:
    source = " ".join(inspect.getsource(method).split())
    gone = [call for call in INNER_CALLS[method] if call not in source]
    assert gone == [], f"{VERSION}: {method.__qualname__} does not contain {gone} any more"


def test_asyncio_shows_what_waits_below_the_encryption() -> None:
    """TrackedTransport.unsent reads this private part of asyncio's TLS transports."""
    source = inspect.getsource(sslproto)
    assert "self._ssl_protocol = ssl_protocol" in source
    assert "self._transport = transport" in source


# ── the tables are complete ──


def used(file: str, holders: set[str]) -> set[str]:
    """The attributes NAME of each `HOLDER.NAME` in a file of qtools/web, for holders like self or cycle."""
    tree = ast.parse((ROOT / "qtools" / "web" / file).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            value = node.value
            is_super = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super"
            if is_super or (isinstance(value, ast.Name) and value.id in holders):
                found.add(node.attr)
    return found


def own(made: type) -> set[str]:
    """What a class of qtools defines itself: methods, class attributes, and what its __init__ and others assign."""
    tree = ast.parse(inspect.getsource(made))
    assigned = {
        target.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
    }
    return set(vars(made)) | set(made.__annotations__) | assigned


@pytest.mark.parametrize(
    ("file", "made", "base"),
    [
        ("http_connection.py", HttpConnection, HttpToolsProtocol),
        ("websocket.py", WebSocket, WebSocketsSansIOProtocol),
    ],
)
def test_the_tables_name_everything_that_is_used(file: str, made: type, base: type) -> None:
    known = METHODS[base].keys() | ATTRIBUTES[base] | METHODS[FlowControl].keys() | SET_BY_HANDLE_CONNECT
    missing = used(file, {"self"}) - own(made) - known - {"_pipeline"}
    assert missing == set(), f"add to the tables of this test: {sorted(missing)}"
    overridden = {name for name in vars(made) if not name.startswith("__") and hasattr(base, name)}
    assert overridden <= METHODS[base].keys()


def test_the_table_of_a_request_names_everything_that_is_used() -> None:
    files = ("http_connection.py", "framing.py", "http_server.py")
    found = set().union(*(used(file, {"cycle", "current", "before"}) for file in files))
    ours = {"on_message_begin", "on_headers_complete"}
    assert (
        found - ATTRIBUTES[RequestResponseCycle] - METHODS[HttpToolsProtocol].keys() - METHODS[FlowControl].keys()
        <= ours
    )


def test_a_tracked_transport_stands_in_for_a_transport() -> None:
    """uvicorn calls these methods of the transport that it is given."""
    called = set()
    for owner in (HttpToolsProtocol, RequestResponseCycle, FlowControl, WebSocketsSansIOProtocol):
        called |= set(re.findall(r"self\._?transport\.(\w+)\(", inspect.getsource(owner)))
    assert called <= set(dir(asyncio.Transport)) | set(dir(TrackedTransport)), called
