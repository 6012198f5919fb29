"""A TCP proxy in a thread, between a program and a broker. It can cut, stall and refuse, and counts what passes.

program ◀──▶ proxy ◀──▶ broker        cut()      what is open ends with a reset; new ones are let in
                                      refuse()   as cut, and nobody listens any more, until accept()
                                      stall()    nothing passes any more, both ways or one, until resume()
                                      tamper     changes the bytes from the broker
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable

from harness.ports import free_pair
from harness.waiting import DEADLINE, wait_until

_BLOCK = 1 << 16
# More than this is not taken from one side while the other takes nothing: a full pipe must be felt.
_MOST_WAITING = 1 << 20


class _Side:
    """One end of a connection that passes through."""

    def __init__(self, end: socket.socket, *, is_broker: bool) -> None:
        self.socket = end
        self.is_broker = is_broker
        self.other: _Side
        self.waiting = bytearray()  # to be sent here
        self.ended = False  # its peer says no more
        self.passed_end = False


class Proxy:
    """Listens on a port of its own and passes on to `target`."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_pair()
        self.connections = 0  # let in so far
        self.tamper: Callable[[bytes], bytes] | None = None  # called in the proxy's thread
        self.said = bytearray()  # what was passed on to the broker so far
        self._stalled_to = self._stalled_from = False
        self._cut_at: int | None = None
        self._sides: dict[socket.socket, _Side] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._waker, self._woken = socket.socketpair()
        self._listening: socket.socket | None = None
        self.accept()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def flags(self) -> list[str]:
        """What a command needs to come through here; HTTP is asked directly."""
        return ["--nsqd-tcp-address", self.address, "--nsqd-http-address", f"127.0.0.1:{self.target + 1}"]

    def wait_connections(self, count: int, deadline: float = DEADLINE) -> None:
        """Until `count` connections were let in, all in all."""
        wait_until(lambda: self.connections >= count, deadline, lambda: f"{count} connections, {self.connections} came")

    @property
    def open(self) -> int:
        """How many connections are open now."""
        with self._lock:
            return len(self._sides) // 2

    def accept(self) -> None:
        with self._lock:
            if self._listening is None:
                self._listening = socket.create_server(("127.0.0.1", self.port), backlog=64)
                self._listening.setblocking(False)
        self._wake()

    def refuse(self) -> None:
        with self._lock:
            if self._listening is not None:
                self._listening.close()
                self._listening = None
            self._reset_all()
        self._wake()

    def cut(self) -> None:
        with self._lock:
            self._reset_all()
        self._wake()

    def cut_after(self, to_broker: int) -> None:
        """Cut by itself when so many more bytes have passed to the broker, before any answer to them passes."""
        with self._lock:
            self._cut_at = len(self.said) + to_broker

    def stall(self, *, answers_only: bool = False) -> None:
        with self._lock:
            self._stalled_to, self._stalled_from = not answers_only, True
        self._wake()

    def resume(self) -> None:
        with self._lock:
            self._stalled_to = self._stalled_from = False
        self._wake()

    def close(self) -> None:
        self.refuse()
        self._ended = True
        self._wake()
        self._thread.join(10)
        self._waker.close()
        self._woken.close()

    # ── the thread ──

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def _run(self) -> None:
        while not self._ended:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                with self._lock:
                    self._watch(selector)
                ready = selector.select()
            if any(key.fileobj is self._woken for key, _ in ready):
                self._woken.recv(4096)
            with self._lock:
                for key, events in ready:
                    self._serve(key.fileobj, events)

    def _watch(self, selector: selectors.BaseSelector) -> None:
        if self._listening is not None:
            selector.register(self._listening, selectors.EVENT_READ)
        for side in self._sides.values():
            events = 0
            if not side.ended and len(side.other.waiting) < _MOST_WAITING and not self._stalled(side.other):
                events |= selectors.EVENT_READ
            if side.waiting and not self._stalled(side):
                events |= selectors.EVENT_WRITE
            if events:
                selector.register(side.socket, events)

    def _stalled(self, side: _Side) -> bool:
        """Whether nothing may be sent to `side` now."""
        return self._stalled_to if side.is_broker else self._stalled_from

    def _serve(self, fileobj: object, events: int) -> None:
        if fileobj is self._listening and self._listening is not None:
            self._let_in(self._listening)
            return
        side = self._sides.get(fileobj)  # type: ignore[call-overload]
        if side is None:
            return
        try:
            if events & selectors.EVENT_READ:
                self._take(side)
            if events & selectors.EVENT_WRITE and side.socket in self._sides:
                self._give(side)
        except BlockingIOError:
            pass
        except OSError:
            self._reset(side)

    def _let_in(self, listening: socket.socket) -> None:
        try:
            client = _Side(listening.accept()[0], is_broker=False)
        except OSError:
            return
        try:
            broker = _Side(socket.create_connection(("127.0.0.1", self.target), 5), is_broker=True)
        except OSError:
            _abort(client.socket)
            return
        self.connections += 1
        client.other, broker.other = broker, client
        for side in (client, broker):
            side.socket.setblocking(False)
            self._sides[side.socket] = side

    def _take(self, side: _Side) -> None:
        data = side.socket.recv(_BLOCK)
        if not data:
            side.ended = True
            if not side.other.waiting:
                self._pass_end(side.other)
            return
        if self.tamper is not None and side.is_broker:
            data = self.tamper(data)
        side.other.waiting += data
        self._give(side.other)

    def _give(self, side: _Side) -> None:
        if self._stalled(side):
            return
        if side.is_broker and self._cut_at is not None and len(self.said) + len(side.waiting) >= self._cut_at:
            side.socket.setblocking(True)
            last = bytes(side.waiting[: self._cut_at - len(self.said)])
            side.socket.sendall(last)
            self.said += last
            self._cut_at = None
            # The broker reads what was passed: its side ends in order, only the client's is reset.
            side.socket.shutdown(socket.SHUT_WR)
            self._reset(side, orderly=side)
            return
        sent = side.socket.send(side.waiting)
        if side.is_broker:
            self.said += side.waiting[:sent]
        del side.waiting[:sent]
        if not side.waiting and side.other.ended:
            self._pass_end(side)

    def _pass_end(self, side: _Side) -> None:
        if not side.passed_end:
            side.passed_end = True
            side.socket.shutdown(socket.SHUT_WR)
        if side.ended and side.other.ended:
            for each in (side, side.other):
                self._sides.pop(each.socket, None)
                each.socket.close()

    def _reset(self, side: _Side, orderly: _Side | None = None) -> None:
        for each in (side, side.other):
            self._sides.pop(each.socket, None)
            if each is orderly:
                each.socket.close()
            else:
                _abort(each.socket)

    def _reset_all(self) -> None:
        for side in list(self._sides.values()):
            if side.socket in self._sides:
                self._reset(side)


def _abort(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
