"""Slow modules are imported in a thread, whatever asks for them first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qtools.imports import import_in_thread

WATCHED = """
import asyncio, sys, threading
class Watch:
    in_event_loop = {}
    def find_spec(self, name, path=None, target=None):
        if name in ("httpx", "httpcore", "anyio", "anyio._backends._asyncio", "h11", "trio", "rich"):
            self.in_event_loop[name] = threading.current_thread() is threading.main_thread()
watch = Watch()
sys.meta_path.insert(0, watch)
async def main():
    CALL
asyncio.run(main())
assert watch.in_event_loop.keys() >= {"httpx", "httpcore", "anyio"}, watch.in_event_loop
assert not any(watch.in_event_loop.values()), watch.in_event_loop
assert not watch.in_event_loop.keys() & {"trio", "rich"}, "httpx has imported what it does not need here"
"""
CALLS = {
    "client": """
    from qtools.engines.nsq.http_client import HttpClient
    from qtools.errors import ConnectFailed
    try:
        await HttpClient("http://127.0.0.1:9").get("/ping")
    except ConnectFailed:
        pass
""",
    "auth": """
    from qtools.broker.tcp.auth import AuthFailed, Authority
    try:
        await Authority(("127.0.0.1:9",), 1.0, 1.0).ask(b"secret", "127.0.0.1", None)
    except AuthFailed:
        pass
""",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_httpx_is_not_imported_in_the_event_loop(call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED.replace("CALL", call.strip())], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_module_that_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError):
        await import_in_thread("qtools.no_such_module")
