"""Writes all of some bytes to a descriptor. In: bytes. Out: how many were written, and the error, if any.

The call blocks: a command makes it in a thread. The descriptor may be non-blocking, as any other process that shares it
(ssh, a program on the same terminal) can make it so.
"""

from __future__ import annotations

import os
import select

STDOUT = 1


def write_all(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """Write all of `data`: the number of bytes that were written, and the error that ended it, or None."""
    view = memoryview(data)
    written = 0
    while written < len(data):
        try:
            written += os.write(fd, view[written:])
        except BlockingIOError:
            ready = select.poll()
            ready.register(fd, select.POLLOUT)
            ready.poll()
        except OSError as error:
            return written, error
    return written, None
