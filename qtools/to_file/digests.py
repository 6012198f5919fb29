"""What a store's answer is held against. In: a file or bytes. Out: size and checksums, from one pass.

S3 shows an object's checksum as its ETag:

    put in one request    MD5 of the object
    put in parts          MD5 over the parts' MD5s, "-", how many parts
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PART = 5 * 1024 * 1024  # S3's least for all parts but the last
MOST_PARTS = 10_000  # S3's limit
_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Digests:
    """size in bytes; part: bytes of each part where it is put in parts; all checksums in hex."""

    size: int
    part: int
    sha256: str
    md5: str
    of_parts: str

    def match(self, e_tag: str | None) -> bool:
        """Whether `e_tag` is the checksum of this, as a store that uses MD5 tells it."""
        return e_tag is not None and e_tag.strip('"').lower() in (self.md5, self.of_parts)


def part_size(size: int) -> int:
    """How large the parts of an object of `size` bytes are: follows from the size, so that its ETag does."""
    return max(PART, -(-size // MOST_PARTS))


def measure(content: Path | bytes) -> Digests:
    """Digests of all that is there; OSError when it cannot be read."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    part = part_size(size)
    whole, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    parts: list[bytes] = []
    seen = in_part = 0
    this = hashlib.md5(usedforsecurity=False)
    for block in _blocks(content):
        whole.update(block)
        sha256.update(block)
        seen += len(block)
        at = 0
        while at < len(block):
            take = min(len(block) - at, part - in_part)
            this.update(block[at : at + take])
            at += take
            in_part += take
            if in_part == part:
                parts.append(this.digest())
                this, in_part = hashlib.md5(usedforsecurity=False), 0
    if in_part:
        parts.append(this.digest())
    joined = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return Digests(seen, part, sha256.hexdigest(), whole.hexdigest(), f"{joined}-{len(parts)}")


def _blocks(content: Path | bytes) -> Iterator[memoryview]:
    if isinstance(content, bytes):
        yield memoryview(content)
        return
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    with content.open("rb", buffering=0) as file:
        while count := file.readinto(view):
            yield view[:count]
