"""All bytes are written, however few a system call takes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from qtools.descriptors import write_all, write_until_error

SIZE = 300_000  # more than a pipe holds


@pytest.mark.parametrize("blocking", [True, False])
def test_a_full_pipe_is_waited_for(blocking: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    data = os.urandom(SIZE)
    received: list[bytes] = []

    def read() -> None:
        with os.fdopen(reading, "rb") as pipe:
            received.append(pipe.read())

    reader = threading.Thread(target=read)
    reader.start()
    assert write_until_error(writing, data) == (SIZE, None)
    os.close(writing)
    reader.join()
    assert received == [data]


def test_what_was_written_before_an_error_is_counted() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def close_when_full() -> None:
        os.read(reading, 1)
        os.close(reading)

    closer = threading.Thread(target=close_when_full)
    closer.start()
    written, error = write_until_error(writing, bytes(SIZE))
    closer.join()
    os.close(writing)
    assert isinstance(error, BrokenPipeError)
    assert written < SIZE


def test_at_an_offset_the_position_of_the_descriptor_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    write_all(fd, b"abcdef")
    write_all(fd, b"XY", 2)
    write_all(fd, b"g")
    os.close(fd)
    assert path.read_bytes() == b"abXYefg"


def test_an_error_is_raised_where_the_caller_needs_no_count(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_all(fd, b"x")
    os.close(fd)
