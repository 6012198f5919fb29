"""What q-to-file left on disk. In: an output directory. Out: the messages in its finished files."""

from __future__ import annotations

import gzip
from pathlib import Path

from qtools.to_file.archive.compression import zstandard


def finished(output: Path) -> list[Path]:
    """Its finished files, without what it says of itself; none is hidden or below something hidden."""
    if not output.is_dir():
        return []
    return sorted(
        path
        for path in output.rglob("*")
        if path.is_file()
        and path.name not in ("manifest.jsonl", "_SUCCESS")
        and not any(part.startswith(".") for part in path.relative_to(output).parts)
    )


def unpacked(path: Path) -> bytes:
    """A file without its compression; an error where it is not whole."""
    stored = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(stored)
    return zstandard().decompress(stored) if path.suffix == ".zst" else stored


def lines(output: Path) -> list[bytes]:
    """All raw messages, file by file; each file ends with a whole one."""
    found: list[bytes] = []
    for path in finished(output):
        data = unpacked(path)
        assert data.endswith(b"\n"), f"{path} has a torn end, or nothing"
        found += data.split(b"\n")[:-1]
    return found


def in_work(output: Path, work: str = ".work") -> list[str]:
    """What is left in the work directory, but for its lock."""
    if not (output / work).is_dir():
        return []
    return sorted(path.name for path in (output / work).iterdir() if path.name != "lock")
