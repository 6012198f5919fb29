"""Writing to a descriptor to the end. In: bytes. Out: how much was written, and what went wrong.

It blocks: a command calls it in a thread. The descriptor may be non-blocking, as any other process that has it open
(ssh, a program on the same terminal) can make it so.
"""

from __future__ import annotations

import os
import select

STDOUT = 1


def write_all(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """Write all of `data`; how much was written, and what went wrong."""
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
