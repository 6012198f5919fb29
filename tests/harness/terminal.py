"""A pseudo terminal. In: a program started with `fd` as one of its streams. Out: what a person would be sent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
import threading

from harness.waiting import wait_until


class Terminal:
    """80 columns. Output is passed as it was written: no newline becomes two characters on the way."""

    def __init__(self) -> None:
        self._master, self.fd = pty.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        modes = termios.tcgetattr(self.fd)
        modes[1] &= ~termios.OPOST
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(self.fd, termios.TCSANOW, modes)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        with contextlib.suppress(OSError):  # the last one who had it open is gone
            while chunk := os.read(self._master, 1 << 16):
                self._shown += chunk

    @property
    def shown(self) -> bytes:
        return bytes(self._shown)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait_shown(self, text: bytes) -> bytes:
        """Until `text` was shown."""
        wait_until(lambda: text in self._shown, what=lambda: f"{text!r} on the terminal, which has {self.shown!r}")
        return self.shown

    def all(self) -> bytes:
        """Everything that was shown, once nobody has the terminal any more but us."""
        self._leave()
        self._reader.join(10)
        assert not self._reader.is_alive(), "somebody has the terminal open"
        return self.shown

    def _leave(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self._leave()
        self._reader.join(10)
        os.close(self._master)
