"""Wait for a condition, with a deadline. In: a question. Out: its first true answer, or a failed test."""

from __future__ import annotations

import fcntl
import resource
import select
import struct
import termios
import time
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")

DEADLINE = 20.0  # s
PAUSE = 0.01


def wait_until(question: Callable[[], Value], deadline: float = DEADLINE, what: str | Callable[[], Any] = "") -> Value:
    """Ask until the answer is true and return it; `what`, or what it returns then, says what was waited for."""
    end = time.monotonic() + deadline
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {deadline:g} s: {told or question}")
        time.sleep(PAUSE)


def pass_time(seconds: float) -> None:
    """Let so much time pass: only where time itself is what the test is about."""
    time.sleep(seconds)


def wait_pipe_full(read: int) -> None:
    """Until a writer has filled the pipe whose end to read from is `read`, so that it waits for its reader."""

    def is_full() -> bool:
        size = fcntl.fcntl(read, fcntl.F_GETPIPE_SZ)
        (held,) = struct.unpack("i", fcntl.ioctl(read, termios.FIONREAD, b"\0\0\0\0"))
        return bool(held > size - select.PIPE_BUF)

    wait_until(is_full, what="a full pipe")


def children_cpu() -> float:
    """The CPU time that all children that have ended and were waited for have used, s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
