"""Numbered lines for the stdin of a program, as long as a test goes on. In: a program. Out: a count."""

from __future__ import annotations

import contextlib
import threading

from harness.shell import Running

KEYS = 17  # different users, by turns


class Feeder:
    """Writes {"n":0,"user":"u0"} and so on to the stdin of a program, as fast as it reads, until `end`."""

    def __init__(self, running: Running) -> None:
        self.count = 0
        self._running = running
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # the program has ended
            while not self._is_ended:
                lines = [b'{"n":%d,"user":"u%d"}\n' % (n, n % KEYS) for n in range(self.count, self.count + 100)]
                self._running.feed(b"".join(lines))
                self.count += 100
            self._running.end_input()

    def end(self) -> None:
        """End the input."""
        self._is_ended = True
        self._thread.join()
