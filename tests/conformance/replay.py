"""Plays recorded conversations against a daemon. In: cases, where it listens. Out: what it answers differently.

A case has steps: bytes to send on a link (`send`, with {idN} for the N-th message id that came), an HTTP
request (`http`), a pause (`wait`), a link to close (`close`), and what nsqd 1.3.0 answered (`frames`, `closed`,
`answer`). Every case has topics of its own, so that cases may run at the same time.

Compared are: each frame's type and payload; of a message its attempts and body, its id by where it came before,
its timestamp by being of now; of JSON its keys, their types, and the values of the keys under `same`.
Keys that only the daemon has are fine.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import time
from typing import Any

QUIET = 0.35  # seconds without a byte: nsqd flushes every 0.25 s, so it has said all it will
PATIENCE = 20.0  # seconds for what nsqd sends, on a machine that does other things
_KINDS = {0: "response", 1: "error", 2: "message"}

Address = tuple[str, int]
Plain = dict[str, Any]


class _Link:
    """One TCP connection: bytes out, frames in."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, timeout=5)
        self.buffer = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def read(self, quiet: float, expected: int, closes: bool) -> list[bytes]:
        """Frames, until `expected` have come, or the end if the daemon `closes`, and then nothing for `quiet` seconds;
        what does not come is waited for during PATIENCE."""
        frames: list[bytes] = []
        deadline = time.monotonic() + PATIENCE
        self.socket.settimeout(quiet)
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                if (len(frames) < expected or closes) and time.monotonic() < deadline:
                    continue
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
                break
            self.buffer += data
            while len(self.buffer) >= 4:
                (size,) = struct.unpack_from(">i", self.buffer)
                if len(self.buffer) < 4 + size:
                    break
                frames.append(self.buffer[4 : 4 + size])
                self.buffer = self.buffer[4 + size :]
        return frames


def play(case: Plain, tcp: Address, http_address: Address) -> list[str]:
    """Play one case; every line of the answer is a difference."""
    ids: list[bytes] = []
    links: dict[str, _Link] = {}
    differences: list[str] = []
    for place, step in enumerate(case["steps"]):
        found: list[str] = []
        if "http" in step:
            method, path, *body = step["http"]
            found = _compare(_ask(http_address, method, path, body[0] if body else None), step["answer"], step)
        elif "wait" in step:
            time.sleep(step["wait"])
        elif "close" in step:
            links.pop(step["close"]).socket.close()
            time.sleep(0.1)
        else:
            name = step.get("link", "a")
            if name not in links:
                links[name] = _Link(tcp)
            found = _talk(links[name], step, ids)
        differences += [f"step {place}: {difference}" for difference in found]
    for link in links.values():
        link.socket.close()
    return differences


def _talk(link: _Link, step: Plain, ids: list[bytes]) -> list[str]:
    """Send what a step says, and compare what comes."""
    wanted = [int(number) for number in re.findall(r"\{id(\d+)\}", step["send"])]
    if any(number >= len(ids) for number in wanted):
        return ["a message that nsqd sends did not come"]
    text = re.sub(r"\{id(\d+)\}", lambda found: ids[int(found[1])].decode("latin-1"), step["send"])
    link.send(text.encode("latin-1") * step.get("times", 1))
    frames = [_describe(raw, ids) for raw in link.read(step.get("quiet", QUIET), len(step["frames"]), step["closed"])]
    if step.get("unordered"):
        for frame in frames:
            frame.pop("id", None)
        frames.sort(key=lambda frame: json.dumps(frame, sort_keys=True))
    if len(frames) != len(step["frames"]):
        return [f"{len(frames)} frames {frames}, nsqd sends {len(step['frames'])}: {step['frames']}"]
    found = []
    for got, want in zip(frames, step["frames"], strict=True):
        found += _compare(got, want, step)
    if link.closed != step["closed"]:
        found.append(f"closed is {link.closed}, nsqd's is {step['closed']}")
    return found


def _describe(raw: bytes, ids: list[bytes]) -> Plain:
    """A frame as plain data, ids replaced by their places."""
    (kind,) = struct.unpack_from(">i", raw)
    if kind == 2:
        stamp, attempts, ident = struct.unpack_from(">qH16s", raw, 4)
        if ident not in ids:
            ids.append(ident)
        return {
            "type": "message",
            "attempts": attempts,
            "id": f"{{id{ids.index(ident)}}}",
            "timestamp_ok": abs(stamp / 1e9 - time.time()) < 600,
            "body": raw[30:].decode("latin-1"),
        }
    text = raw[4:].decode("latin-1")
    for place, ident in enumerate(ids):
        text = text.replace(ident.decode("latin-1"), f"{{id{place}}}")
    return {"type": _KINDS.get(kind, str(kind))} | _payload(text)


def _payload(text: str) -> Plain:
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    return {"json": parsed} if isinstance(parsed, dict) else {"data": text}


def _ask(address: Address, method: str, path: str, body: Any) -> Plain:
    if isinstance(body, dict):  # a long body, kept short in the file
        body = body.get("lead", "") + "x" * body["fill"]
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request(method, path, body=None if body is None else body.encode("latin-1"))
        reply = connection.getresponse()
        return {"status": reply.status} | _payload(reply.read().decode("latin-1"))
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "data": f"no answer: {error!r}"}
    finally:
        connection.close()


def _compare(got: Plain, want: Plain, step: Plain) -> list[str]:
    """Differences between an answer and the recorded one."""
    if "json" not in want:
        return [] if got == want else [f"got {got}, nsqd says {want}"]
    if "json" not in got or got.get("status") != want.get("status"):
        return [f"got {got}, nsqd says {want}"]
    found = _lacks(_shape(got["json"]), _shape(want["json"]))
    for path in step.get("same", ()):
        try:
            ours, theirs = _pick(got["json"], path), _pick(want["json"], path)
        except (KeyError, IndexError, TypeError):
            found.append(f"{path} cannot be read")
            continue
        if ours != theirs:
            found.append(f"{path} is {ours!r}, nsqd has {theirs!r}")
    return found


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "null" if value is None else "string"


def _lacks(got: Any, want: Any) -> list[str]:
    """Keys of `want` that `got` lacks or has another type for."""
    if isinstance(want, dict) and isinstance(got, dict):
        found = [f"no key {key!r}" for key in want if key not in got]
        for key in want.keys() & got.keys():
            found += [f"{key}: {difference}" for difference in _lacks(got[key], want[key])]
        return found
    if isinstance(want, list) and isinstance(got, list):
        return _lacks(got[0], want[0]) if got and want else []
    return [] if want == "null" or got == want else [f"{got} where nsqd has {want}"]


def _pick(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value
