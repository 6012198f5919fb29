"""The names of rotated files, and the order in which they were rotated. In: names and candidates. No file is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtools.pipe.logs.rotation import Candidate

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}

# A rotation adds this to the name, or before its extension: app.log.1, app.log-20261128, app-2026-11-28.log
_NUMBERED = re.compile(
    r"(?P<stem>.+?)(?P<sign>[._-])(?P<number>[0-9]+(?:[-._T:]?[0-9]+)*)(?P<extension>\.[A-Za-z][A-Za-z0-9]*)?"
)
_DATE_DIGITS = 6  # with so many digits it is a date or time, and a larger one is newer; otherwise 1 is the newest file


def compression_of(name: str) -> str:
    """The compression ("gzip", …) by the suffix of the name; "" for a plain file."""
    return COMPRESSIONS.get(os.path.splitext(name)[1], "")


def base_names(name: str) -> list[str]:
    """The names of the logs whose rotated file `name` may be: `app.log.2.gz` → `app.log`; [] if there is none."""
    if compression_of(name):
        name = os.path.splitext(name)[0]
    found = _NUMBERED.fullmatch(name)
    if found is None or (found["sign"] != "." and sum(map(str.isdigit, found["number"])) < _DATE_DIGITS):
        return []  # worker-1.log is not a rotated file of worker.log
    return [found["stem"] + (found["extension"] or "")]


def in_rotation_order(files: Sequence[Candidate]) -> list[Candidate]:
    """`files` of one log, oldest first.

    By name, if one rule applies to all names: dates ascend; numbers count from the newest file, or from the oldest if
    the times of the last writes ascend with them. Otherwise by the time of the last write.
    """
    numbers = [_number(os.path.basename(each.path)) for each in files]
    by_time = sorted(files, key=lambda each: (each.modified, _natural(each.path)))
    if not files or not all(numbers):
        return by_time
    digits = [sum(map(str.isdigit, number)) for number in numbers]
    pairs = sorted(zip(files, numbers, strict=True), key=lambda pair: _natural(pair[1]))
    by_name = [each for each, _ in pairs]
    if min(digits) >= _DATE_DIGITS:
        return by_name
    if max(digits) >= _DATE_DIGITS:
        return by_time
    times = [each.modified for each in by_name if not each.compression]  # compressing a file may change its time
    ascends = len(times) > 1 and all(one < two for one, two in pairwise(times))
    return by_name if ascends else by_name[::-1]


def _number(name: str) -> str:
    if compression_of(name):
        name = os.path.splitext(name)[0]
    found = _NUMBERED.fullmatch(name)
    return found["number"] if found is not None else ""


def _natural(text: str) -> list[tuple[int, str]]:
    """A sort key that puts `app.log.10` behind `app.log.9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", text)]


def without_unfinished(files: Sequence[Candidate]) -> list[Candidate]:
    """`files` without the compressed files whose plain file still exists: these are being written."""
    plain = {each.path for each in files if not each.compression}
    return [each for each in files if not each.compression or os.path.splitext(each.path)[0] not in plain]
