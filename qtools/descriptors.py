"""Writes all bytes of a block to a file descriptor. In: bytes. Out: how many were written, and the error, if any.

The calls block: a command makes them in a thread. A system call may write only a part of the bytes. A descriptor may
also be non-blocking, as any process that shares it (ssh, a program on the same terminal) can make it so.
"""

from __future__ import annotations

import os
import select

STDOUT = 1


def write_until_error(fd: int, data: bytes, at: int | None = None) -> tuple[int, OSError | None]:
    """Write `data`, at the offset `at` if it is given. Returns the number of bytes that were written, and the error
    that stopped the writing, or None."""
    view = memoryview(data)
    written = 0
    while written < len(data):
        try:
            if at is None:
                written += os.write(fd, view[written:])
            else:
                written += os.pwrite(fd, view[written:], at + written)
        except BlockingIOError:
            ready = select.poll()
            ready.register(fd, select.POLLOUT)
            ready.poll()
        except OSError as error:
            return written, error
    return written, None


def write_all(fd: int, data: bytes, at: int | None = None) -> None:
    """Write all of `data`, at the offset `at` if it is given. OSError if that fails; a part may be written by then."""
    _, error = write_until_error(fd, data, at)
    if error is not None:
        raise error
