"""A file can be read by zcat and zstdcat at every sync, and what ends it follows from numbers alone."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import subprocess
import zlib

import pytest

from qtools.to_file.archive.compression import COMPRESSIONS, ending, open_stream
from to_file.house import unpacked

READERS = {"none": "cat", "gzip": "zcat", "zstd": "zstdcat"}


def events(count: int, seed: int = 1) -> bytes:
    draw = random.Random(seed)
    kinds = ["view", "buy"]
    told = ({"id": f"{draw.getrandbits(64):016x}", "type": draw.choice(kinds), "n": n} for n in range(count))
    return b"".join(json.dumps(event).encode() + b"\n" for event in told)


def read_by(program: str, data: bytes) -> bytes:
    """What the program people use shows of `data`, whole or not."""
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")
    return subprocess.run([program], input=data, capture_output=True, check=False).stdout


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_everything_is_readable_at_every_sync(compression: str) -> None:
    stream = open_stream(compression)
    plain = stored = b""
    for nth in range(12):
        block = events(1 + nth * 300, nth)
        plain += block
        stored += stream.add(block[:100]) + stream.add(block[100:]) + stream.flush()
        assert read_by(READERS[compression], stored) == plain
        whole = stored + ending(compression, stream.crc, len(plain))
        assert unpacked(whole, compression) == plain
        done = subprocess.run([READERS[compression]], input=whole, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, plain, b"")


def test_gzip_is_one_member_however_many_syncs() -> None:
    stream = open_stream("gzip")
    blocks = [events(50, nth) for nth in range(40)]
    stored = b"".join(stream.add(block) + stream.flush() for block in blocks)
    stored += ending("gzip", stream.crc, sum(map(len, blocks)))
    reader = zlib.decompressobj(31)
    assert reader.decompress(stored) == b"".join(blocks)
    assert (reader.eof, reader.unused_data) == (True, b"")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_syncs_cost_little(compression: str) -> None:
    blocks = [events(1250, nth) for nth in range(20)]
    stream = open_stream(compression)
    size = sum(len(stream.add(block)) + len(stream.flush()) for block in blocks)
    assert size < len(gzip.compress(b"".join(blocks))) * 1.15


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_higher_level_is_taken(compression: str) -> None:
    def size(level: int) -> int:
        stream = open_stream(compression, level)
        return len(stream.add(events(3000)) + stream.flush())

    assert size(3) < size(0 if compression == "gzip" else 1) or compression == "zstd"
    assert size(3) != size(1)
