"""The size and checksums that a store's answer is compared with. In: a file or bytes. Out: Digests, from one pass.

S3 returns an object's checksum as its ETag:

    put in one request    MD5 of the object
    put in parts          MD5 over the parts' MD5s, "-", how many parts
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SINGLE_PUT = 16 * 1024 * 1024  # bytes; the whole content of such a request is in memory
PART = 5 * 1024 * 1024  # bytes: S3's minimum for every part but the last
MOST_PARTS = 10_000  # S3's limit
_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Digests:
    """size in bytes; part: bytes of each part, 0 for an upload in one request; sha256 in hex; e_tag as S3's."""

    size: int
    part: int
    sha256: str
    e_tag: str

    def match(self, e_tag: str | None) -> bool:
        """Whether `e_tag` is what S3 returns for this content, uploaded in parts of this size."""
        return e_tag is not None and e_tag.strip('"').lower() == self.e_tag


def measure(content: Path | bytes) -> Digests:
    """The digests of `content`; OSError when the file cannot be read."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    # The size of the parts depends only on the size of the content, so the same content always has the same ETag.
    part = max(PART, -(-size // MOST_PARTS)) if size > SINGLE_PUT else 0
    sha256, md5 = hashlib.sha256(), _md5()
    parts: list[bytes] = []
    seen = in_part = 0
    for block in _blocks(content):
        sha256.update(block)
        seen += len(block)
        while part and in_part + len(block) >= part:
            left = part - in_part
            md5.update(block[:left])
            parts.append(md5.digest())
            md5, in_part, block = _md5(), 0, block[left:]
        md5.update(block)
        in_part += len(block)
    if not part:
        return Digests(seen, part, sha256.hexdigest(), md5.hexdigest())
    if in_part:
        parts.append(md5.digest())
    return Digests(seen, part, sha256.hexdigest(), f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}")


def _md5(data: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)


def _blocks(content: Path | bytes) -> Iterator[memoryview]:
    if isinstance(content, bytes):
        yield memoryview(content)
        return
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    with content.open("rb", buffering=0) as file:
        while count := file.readinto(view):
            yield view[:count]
