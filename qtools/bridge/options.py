"""What a run of q-bridge needs, as plain data: the worker never sees click."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.cli.metrics.operations import OperationsOptions
from qtools.engines.contract import EndConditions, Engine, NewTopics
from qtools.names import Subscription
from qtools.routing.routes import MAX_TOPICS

if TYPE_CHECKING:
    from qtools.flow.keying import Keying
    from qtools.schemas.decoding import BatchDecoder

ON_ERROR = ("dead-letter", "drop", "fail", "pass")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """Times in s, rate in messages/s (0: no limit); `max_attempts` 0 and `count` None are without end."""

    sources: tuple[Subscription, ...]
    engine: Engine
    to_engine: Engine | None  # None: where the sources are
    to: tuple[str, ...] = ()
    routes: str = ""  # a file
    where: str | None = None
    select: str | None = None
    decoder: BatchDecoder | None = None
    redrive: bool = False
    dedupe: str | None = None
    dedupe_window: float = 3600.0
    dedupe_keys: int = 10_000_000
    dedupe_file: str = ""  # "": one of its own in the state directory
    on_error: str = "dead-letter"
    on_trial: bool = False  # `on_error` was not asked for: the run ends where none of the first messages can be routed
    # (with `redrive`: where none of all messages is a dead letter)
    dead_letter_topic: str = ""  # "": each source's own
    max_attempts: int = 0
    max_topics: int = MAX_TOPICS
    balance: str = "fastest"
    rate: float = 0.0
    defer: float = 0.0
    since: float | None = None  # s since 1970, where new channels begin
    max_in_flight: int = 2500
    count: int | None = None
    ends: EndConditions = field(default_factory=EndConditions)
    fail_if_none: bool = False
    keying: Keying | None = None
    new_topics: NewTopics | None = None
    dry_run: bool = False
    explain: bool = False
    reads_envelopes: bool = False  # from stdin, with `explain`
    operations: OperationsOptions = field(default_factory=OperationsOptions)
    show: bool = True
