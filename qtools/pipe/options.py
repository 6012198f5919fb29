"""The options of a run of q-pipe, as plain data: only the command line uses click."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qtools.cli.metrics.operations import OperationsOptions
from qtools.engines.contract import Engine

if TYPE_CHECKING:  # few runs filter, and its modules take time to import
    from qtools.engines.contract import NewTopics
    from qtools.flow.filter import Rules
    from qtools.flow.keying import Keying
    from qtools.flow.steps import OnError
    from qtools.schemas.encoding import BodyEncoder


class PipeOptions(NamedTuple):
    """Sizes in bytes, times in s, rate in messages/s (0: no limit)."""

    topic: str
    files: tuple[str, ...]  # "-" is stdin
    engine: Engine
    format: str = "raw"
    delimiter: bytes = b"\n"
    fail_on_empty: bool = False
    skip_oversize: bool = False
    rules: Rules | None = None  # which messages are sent, and with what body
    routes: str = ""  # the path of a routes file, instead of `topic`
    on_error: OnError = "fail"  # for a message that cannot be routed, if there are no rules
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
    skip_missing: bool = False  # whether to go on if a rotated file is not found
    skip_if_running: bool = False
    keying: Keying | None = None
    key_encoder: BodyEncoder | None = None  # of the keying
    new_topics: NewTopics | None = None
    partition: int | None = None  # for all messages
    operations: OperationsOptions = OperationsOptions()
    show: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether each input is one message."""
        return self.format == "raw" and not self.delimiter

    @property
    def reads_logs(self) -> bool:
        """Whether files are read as logs, which may be rotated and written to, with a position for each file."""
        if self.follow:
            return True
        return bool(self.checkpoint) and not any(
            name == "-" or (os.path.exists(name) and not os.path.isfile(name)) for name in self.files
        )

    @property
    def goal(self) -> str:
        """The destination, which distinguishes the checkpoints of runs that read the same files."""
        return f"--routes {os.path.abspath(self.routes)}" if self.routes else self.topic
