"""The Date header of responses (RFC 9110, 6.6.1). In: the clock. Out: a header, made once a second."""

from __future__ import annotations

import time
from email.utils import formatdate


class DateHeader:
    """`header()` is the same object for a whole second."""

    def __init__(self, name: bytes = b"date") -> None:
        self._second = 0
        self._name = name
        self._header = (name, b"")

    def header(self) -> tuple[bytes, bytes]:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._header = (self._name, formatdate(second, usegmt=True).encode())
        return self._header
