"""What a run of q-exec needs, as plain data: the code of the run does not depend on click."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.cli.metrics.operations import OperationsOptions
from qtools.engines.contract import EndConditions, Engine, NewTopics
from qtools.exec.outcomes import ExitRules
from qtools.names import Subscription

if TYPE_CHECKING:  # few runs filter, and its modules take time to import
    from qtools.flow.filter import Rules


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """Times in s.

    command: the program and its arguments. keeps: it is started once, for all messages. replace: the text in arguments
    that stands for the body, "" for none. batch: messages for one command, which is started when the first of them has
    waited `batch_wait`. jobs: commands, or workers, at once. rules: what becomes of a message by exit status. timeout:
    after which a command is ended, 0 for never. backoff, longest_backoff: the delay of a message that failed once,
    which doubles with each attempt, and its limit. max_attempts: deliveries after which a message that fails is a dead
    letter; 0 for never. max_in_flight: 0 for as many as `jobs` commands take, and as many again.
    """

    sources: tuple[Subscription, ...]
    engine: Engine
    command: tuple[str, ...]
    keeps: bool = False
    format: str = "raw"
    delimiter: bytes = b"\n"
    replace: str = "{}"
    batch: int = 1
    batch_wait: float = 1.0
    jobs: int = 1
    where_rules: Rules | None = None  # --where and --select
    on_error: str = "dead-letter"
    rules: ExitRules = field(default_factory=lambda: ExitRules({}))
    timeout: float = 0.0
    backoff: float = 1.0
    longest_backoff: float = 300.0
    max_attempts: int = 0
    dead_letter_topic: str = ""  # "": each source's own
    new_topics: NewTopics | None = None
    tag: bool = False
    group: bool = False
    count: int | None = None
    ends: EndConditions = field(default_factory=EndConditions)
    fail_if_none: bool = False
    since: float | None = None  # s since 1970, where new channels begin
    max_in_flight: int = 0
    operations: OperationsOptions = field(default_factory=OperationsOptions)
    show: bool = True
