"""Gives finished files their names below an output directory. In: a file that is whole. Out: its record.

A name that is taken is not given: the revision in it is counted up until no file has the name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

from qtools.to_file.archive.file_record import FileRecord, beside, write_beside
from qtools.to_file.archive.layout import fill_offsets, fill_rev
from qtools.to_file.archive.manifest import is_reserved
from qtools.to_file.archive.publish_file import give_name, is_named, make_directories
from qtools.to_file.archive.workfile import WorkFile


class FileNamer:
    """Names files below `output`. spooled: keep the record of a file in a second file beside it. A file of a log has
    such a record until the manifest has the file. on_try: called with each path before the disk is used."""

    def __init__(self, output: Path, *, spooled: bool, on_try: Callable[[Path], None]) -> None:
        self._output = output
        self._on_try = on_try
        self._spooled = spooled

    def has_name(self, file: WorkFile) -> bool:
        """Whether a file of a log, which is not spooled, has its name already: a crash, or an error of the disk, may
        have come after that."""
        state = file.state
        return (
            state.rev >= 0
            and not self._spooled
            and (not file.data.exists() or is_named(file.data, self.target(file, state.rev), state.size, state.sha256))
        )

    def target(self, file: WorkFile, rev: int) -> Path:
        """The path of `file` with revision `rev`."""
        return self._output / _relative(file, rev)

    def give_name(self, file: WorkFile) -> FileRecord:
        """Give `file` the first name that is free, or the one that an earlier call has given to it."""
        state, head = file.state, file.head
        for rev in count(max(0, state.rev)):
            relative = _relative(file, rev)
            target = self._output / relative
            self._on_try(target)
            finished = FileRecord(
                target, relative, head.topic, state.count, state.bytes, state.size, state.sha256,
                state.first, state.last, file.ids_hash, head.format, head.compression,
                partition=head.partition, first_offset=state.first_offset, last_offset=state.last_offset,
                follows=head.follows, topic_id=head.topic_id, source=file.source, directory=file.partition,
            )  # fmt: skip
            if file.source is not None and file.source.lost is not None:
                finished = replace(finished, lost_from=file.source.lost.first, lost_to=file.source.lost.last)
            if rev == state.rev and is_named(file.data, target, state.size, state.sha256):
                return finished
            if os.path.lexists(target) or is_reserved(relative):
                continue
            if self._spooled and rev != state.rev and beside(target).exists():
                continue
            file.name(rev)
            if self._spooled or file.source is not None:
                make_directories(target.parent)
                write_beside(finished)
            if give_name(file.data, target, f".{file.data.name}"):
                return finished
        raise AssertionError


def _relative(file: WorkFile, rev: int) -> str:
    head, state = file.head, file.state
    if head.partition < 0:
        return fill_rev(head.name, rev)
    return fill_rev(fill_offsets(head.name, head.partition, state.first_offset, state.last_offset), rev)
