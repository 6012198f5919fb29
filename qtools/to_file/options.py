"""The options of a run of q-to-file, as plain data: only the command line uses click."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qtools.cli.metrics.operations import OperationsOptions
from qtools.engines.contract import EndConditions, Engine
from qtools.expressions.expression import Expression
from qtools.flow.filter import Rules
from qtools.names import Subscription
from qtools.to_file.archive.archive import Rotation

if TYPE_CHECKING:  # few runs decode
    from qtools.schemas.decoding import BatchDecoder


@dataclass(frozen=True, slots=True)
class Sync:
    """When messages are synced: after `count` messages, `size` bytes of bodies, or when the oldest is `age` s old."""

    count: int = 1250
    size: int = 4 * 1024 * 1024
    age: float = 1.0


@dataclass(frozen=True, slots=True)
class DedupeOptions:
    """key: the expression for the key of a message. Keys are stored at `path` for `window` s, at most `most` of
    them."""

    key: Expression
    path: Path
    window: float
    most: int


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """Times in s, sizes in bytes. `name` is the template of file names, `partition` that of directories, or "".

    output: the directory of finished files. With a `store` (a URL) it is the spool, from where they are uploaded;
    without `spool` it is not used.
    """

    sources: tuple[Subscription, ...]
    engine: Engine
    output: Path
    work_dir: Path
    store: str = ""
    s3_endpoint: str = ""
    spool: bool = True
    format: str = "raw"
    is_default_format: bool = False  # no format was given
    delimiter: bytes = b"\n"
    compression: str = "none"
    level: int | None = None
    name: str = ""
    datetime_format: str = ""
    host: str = ""
    local_time: bool = False
    partition: str = ""
    partition_by: Expression | None = None
    rotation: Rotation = field(default_factory=Rotation)
    sync: Sync = field(default_factory=Sync)
    max_open_files: int = 64
    decoder: BatchDecoder | None = None
    rules: Rules | None = None  # which messages are archived, and with what body
    dedupe: DedupeOptions | None = None
    by_offsets: bool = False  # files are of one partition of a log, and each of its messages is archived once
    lateness: float | None = None  # if set, complete partitions are marked
    pattern: re.Pattern[str] | None = None
    channel: str = ""
    topic_refresh: float = 15.0
    ends: EndConditions = field(default_factory=EndConditions)
    fail_if_none: bool = False
    max_runtime: float | None = None
    skip_if_running: bool = False
    since: float | None = None  # s since 1970, where new channels begin
    max_in_flight: int = 2500
    operations: OperationsOptions = field(default_factory=OperationsOptions)
    show: bool = True
