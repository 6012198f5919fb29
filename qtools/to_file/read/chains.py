"""Whether the files of a log's partitions (Kafka) are all there. In: what manifests say. Out: gaps, overlaps.

Each file says which offset it follows: the last one of the file before it, of the same partition and in the same
directory. So offsets that the log itself does not have (a compacted topic, markers of transactions), messages that a
filter left out, and messages in other directories are no gaps.

    gap        the file that it follows is not there, though files before that are
               or a process has found that they were archived once, and were not there any more ("lost_from")
    overlap    it begins before the file before it ends, or follows the same file as another
    begins     (a remark) the file that it follows is not there, and none before that: older files were removed
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from qtools.to_file.archive.manifest import Manifested


class ChainFault(NamedTuple):
    """What is wrong: with the file `name`; `told` is a clause for people."""

    name: str
    kind: str
    told: str


def check_chains(files: Iterable[Manifested]) -> list[ChainFault]:
    """The faults of all partitions, by name."""
    partitions: dict[tuple[str, int], list[Manifested]] = {}
    for file in files:
        if file.partition >= 0:
            partitions.setdefault((file.topic, file.partition), []).append(file)
    found: list[ChainFault] = []
    for some in partitions.values():
        found += _check(sorted(some, key=lambda file: (file.first_offset, file.last_offset, file.name)))
    return sorted(found)


def _check(files: list[Manifested]) -> list[ChainFault]:
    """The faults of one partition, whose files are in the order of their offsets."""
    found: list[ChainFault] = []
    ends = {file.last_offset: file for file in files}
    followers: dict[int, Manifested] = {}
    newest: dict[str, Manifested] = {}  # of each directory, the file that ends last so far
    lost: set[tuple[int, int]] = set()
    for file in files:
        gap = file.lost_from, file.lost_to
        if file.lost_to >= 0 and gap not in lost and file.lost_to not in ends:  # else they were put back
            lost.add(gap)
            what = (
                f"partition {file.partition}: offsets {file.lost_from} to {file.lost_to} are in no file, and were once"
            )
            found.append(ChainFault(file.name, "gap", what))
        directory = file.name.rpartition("/")[0]
        before = newest.get(directory)
        twin = followers.setdefault(file.follows, file) if file.follows >= 0 else file
        if before is not None and file.first_offset <= before.last_offset:
            last = min(file.last_offset, before.last_offset)
            what = f"offsets {file.first_offset} to {last} of partition {file.partition} are also in {before.name}"
            found.append(ChainFault(file.name, "overlap", what))
        elif twin is not file:
            what = f"it follows offset {file.follows} of partition {file.partition}, as {twin.name} does"
            found.append(ChainFault(file.name, "overlap", what))
        elif file.follows >= 0 and file.follows not in ends:
            found.append(_missing(file, before, any(each.last_offset < file.follows for each in files)))
        if before is None or file.last_offset > before.last_offset:
            newest[directory] = file
    return found


def _missing(file: Manifested, before: Manifested | None, is_gap: bool) -> ChainFault:
    """The file that `file` follows is not there. before: the one before it in its directory."""
    follows = f"partition {file.partition}: the file up to offset {file.follows}, which it follows, is not there"
    if not is_gap:
        return ChainFault(file.name, "begins", f"{follows}, nor are earlier ones")
    if before is None:
        return ChainFault(file.name, "gap", follows)
    between = f"{before.last_offset + 1} to {file.follows}"
    return ChainFault(file.name, "gap", f"partition {file.partition}: offsets {between} are in no file")
