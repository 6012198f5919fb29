"""Keys on a terminal. In: stdin, a function. Out: calls with the names of keys.

    a letter or digit    itself        up down enter escape backspace

The terminal is in cbreak mode meanwhile: Ctrl-C still is a signal.
"""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections.abc import Callable, Iterator

_SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b[C": "enter", b"\x1b[D": "escape",
    b"\r": "enter", b"\n": "enter", b"\x7f": "backspace", b"\x08": "backspace", b"\x1b": "escape",
}  # fmt: skip


def keys_in(data: bytes) -> Iterator[str]:
    """The keys that a terminal has sent as `data`; sequences of other keys are left out."""
    while data:
        for sequence, name in _SEQUENCES.items():
            if data.startswith(sequence) and not (sequence == b"\x1b" and data[1:2] in (b"[", b"O")):
                yield name
                data = data[len(sequence) :]
                break
        else:
            if data[:2] in (b"\x1b[", b"\x1bO"):  # a key that has no name here
                end = next((place for place in range(2, len(data)) if 0x40 <= data[place] <= 0x7E), len(data))
                data = data[end + 1 :]
                continue
            text = data.decode("utf-8", "ignore")
            if text[:1].isprintable() and text:
                yield text[0]
            data = data[max(1, len(text[:1].encode())) :]


class Keyboard:
    """Calls `on_key` for each key, from `start` to `close`."""

    def __init__(self, fd: int, on_key: Callable[[str], None]) -> None:
        self._fd = fd
        self._on_key = on_key
        self._before: list[object] | None = None

    def start(self) -> None:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        if self._before is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]
            self._before = None

    def _read(self) -> None:
        data = os.read(self._fd, 1024)
        if not data:  # the terminal is gone
            self._on_key("q")
            asyncio.get_running_loop().remove_reader(self._fd)
        for key in keys_in(data):
            self._on_key(key)
