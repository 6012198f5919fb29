"""Compressed bytes → bytes. In: chunks of a file of gzip members or zstd frames. Out: blocks of bounded size.

A file has many zstd frames, as one ends at every sync. InputError for a file that ends within a member or frame, or
that is not in the format. One step yields at most BLOCK bytes, however well a chunk was compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qtools.errors import InputError

BLOCK = 1024 * 1024

NAMES = ("none", "gzip", "zstd")


class Inflater:
    """Decompresses `compression`: "none", "gzip" or "zstd"."""

    def __init__(self, compression: str) -> None:
        self._name = compression
        self._make: Callable[[], Any] | None = None
        self._errors: tuple[type[Exception], ...] = ()
        if compression == "gzip":
            from isal import igzip_lib

            self._make = lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self._errors = (getattr(igzip_lib, "IsalError"), EOFError, ValueError)  # noqa: B009  its stub calls it an instance
        elif compression == "zstd":
            from qtools.to_file.archive.compression import zstandard

            zstd = zstandard()
            self._make = zstd.ZstdDecompressor
            self._errors = (zstd.ZstdError, EOFError)
        elif compression != "none":
            raise InputError(f"the compression {compression!r} is unknown to this program")
        self._part: Any = None  # the decompressor of the current member or frame

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decompressed bytes of `chunk`. Iterate to the end before the next call."""
        if self._make is None:
            if chunk:
                yield chunk
            return
        rest = chunk
        while rest or (self._part is not None and not self._part.needs_input):
            if self._part is None:
                self._part = self._make()
            try:
                block = self._part.decompress(rest, BLOCK)
            except self._errors as error:
                raise InputError(f"is not {self._name}, or damaged ({error})") from error
            rest = b""
            if self._part.eof:
                rest, self._part = self._part.unused_data, None
            if block:
                yield block

    def end(self) -> None:
        """InputError if the file ended within a member or frame."""
        if self._part is not None:
            what = "member" if self._name == "gzip" else "frame"
            raise InputError(f"ends in the middle of a {self._name} {what}: it was cut off")
