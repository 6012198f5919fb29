"""What a run of q-pipe needs, as plain data: the worker never sees click."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.cli.metrics.operations import OperationsOptions
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.settings import Settings

if TYPE_CHECKING:  # few runs filter, and its modules take time to import
    from qtools.flow.filter import Filter, OnError


@dataclass(frozen=True, slots=True)
class PipeOptions:
    """Sizes in bytes, times in s, rate in messages/s (0: no limit)."""

    topic: str
    files: tuple[str, ...]  # "-" is stdin
    brokers: Brokers
    settings: Settings
    format: str = "raw"
    delimiter: bytes = b"\n"
    fail_on_empty: bool = False
    skip_oversize: bool = False
    rules: Filter | None = None  # what is sent, and with what body
    routes: str = ""  # a file that says where, in place of `topic`
    on_error: OnError = "fail"  # what becomes of a message that cannot be routed, where no rules say it
    rate: float = 0.0
    defer: float = 0.0
    batch_count: int = 5000
    batch_bytes: int = 1024 * 1024
    linger: float = 0.0
    window: int = 8
    replicate: bool = False
    retry_timeout: float = 60.0
    skip_bytes: int = 0
    checkpoint: str = ""
    follow: bool = False
    rotated: tuple[str, ...] = ()  # globs of rotated files
    skip_missing: bool = False  # where a rotated file is not found
    skip_if_running: bool = False
    operations: OperationsOptions = field(default_factory=OperationsOptions)
    show: bool = True

    @property
    def is_whole(self) -> bool:
        """Each input is one message."""
        return self.format == "raw" and not self.delimiter

    @property
    def reads_logs(self) -> bool:
        """The files may be rotated and written to while they are read, and there is a place to go on at."""
        if self.follow:
            return True
        return bool(self.checkpoint) and not any(
            name == "-" or (os.path.exists(name) and not os.path.isfile(name)) for name in self.files
        )

    @property
    def goal(self) -> str:
        """What tells this run from others that read the same files."""
        return f"--routes {os.path.abspath(self.routes)}" if self.routes else self.topic
