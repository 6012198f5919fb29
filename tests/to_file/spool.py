"""A spool as a closed file leaves it: the file, and what is known of it beside it. As a program, an uploader.

python spool.py URL ENDPOINT SPOOL      uploads what lies there until nothing waits
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import random
import sys
from pathlib import Path

import orjson

from qtools.cli import logs
from qtools.to_file.archive.content_hash import ContentHash
from qtools.to_file.archive.file_record import FileRecord, write_beside
from qtools.to_file.sinks.upload import Uploader
from qtools.to_file.stores.opening import open_store

DAY = 1_795_507_200_000_000_000  # 2026-11-24T08:00:00Z in ns
NSQD = "127.0.0.1:4150"


def encoded(format: str, topic: str, numbers: list[int], attempts: int = 1, size: int = 40) -> bytes:
    """Messages with these numbers, as a format has them."""
    out = []
    for number in numbers:
        body = b"message %08d " % number + random.Random(number).randbytes(size).hex().encode()
        if format == "raw":
            out.append(body + b"\n")
        elif format == "length32":
            out.append(len(body).to_bytes(4, "big") + body)
        else:
            told = {"topic": topic, "id": f"{number:016x}", "timestamp": DAY + number * 1_000_000_000,
                    "attempts": attempts, "source": NSQD}  # fmt: skip
            if format == "envelope":
                out.append(orjson.dumps(told | {"body": body.decode()}) + b"\n")
            else:
                import msgpack

                out.append(msgpack.packb(told | {"body": body}))
    return b"".join(out)


def bodies(numbers: list[int], size: int = 40) -> list[bytes]:
    return encoded("raw", "", numbers, size=size).splitlines()


def compressed(compression: str, data: bytes) -> bytes:
    """In two members, or frames, as two syncs leave it."""
    middle = len(data) // 2
    if compression == "gzip":
        return gzip.compress(data[:middle]) + gzip.compress(data[middle:])
    if compression == "zstd":
        from backports import zstd

        return zstd.compress(data[:middle]) + zstd.compress(data[middle:])
    return data


def finish(
    spool: Path, name: str, numbers: list[int], *, format: str = "envelope", compression: str = "gzip",
    topic: str = "events", directory: str = "dt=2026-11-24", attempts: int = 1, size: int = 40,
) -> FileRecord:  # fmt: skip
    """A file of messages with these numbers, closed in the spool."""
    content = compressed(compression, encoded(format, topic, numbers, attempts, size))
    ids = ContentHash(topic)
    ids.add(NSQD, [b"%016x" % number for number in numbers])
    finished = FileRecord(
        path=spool / name, relative=f"{directory}/{name}" if directory else name, topic=topic, count=len(numbers),
        bytes=sum(map(len, bodies(numbers, size))), size=len(content), sha256=hashlib.sha256(content).hexdigest(),
        first_timestamp=DAY + min(numbers) * 1_000_000_000, last_timestamp=DAY + max(numbers) * 1_000_000_000,
        ids_hash=ids.hexdigest(), format=format, compression=compression,
    )  # fmt: skip
    spool.mkdir(parents=True, exist_ok=True)
    write_beside(finished)
    finished.path.write_bytes(content)
    return finished


async def upload_all(url: str, endpoint: str, spool: Path) -> None:
    logs.set_up("uploader")
    uploader = Uploader(open_store(url, endpoint=endpoint, create=True, patience=0.5), spool)
    running = asyncio.create_task(uploader.run())
    await asyncio.sleep(0)
    await uploader.wait_empty()
    uploader.close()
    await running
    print(f"uploaded={uploader.uploaded} existed={uploader.existed} stuck={uploader.stuck}", flush=True)


if __name__ == "__main__":
    asyncio.run(upload_all(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
