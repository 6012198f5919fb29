"""The options of a run of q-tail, as plain data: the code of the run does not depend on click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.cli.metrics.operations import OperationsOptions
from qtools.engines.contract import EndConditions, Engine
from qtools.names import Subscription

if TYPE_CHECKING:  # few runs filter, and its modules take time to import
    from qtools.expressions.expression import Expression
    from qtools.flow.filter import Rules
    from qtools.schemas.decoding import BatchDecoder
    from qtools.tail.template import Part


@dataclass(frozen=True, slots=True)
class TailOptions:
    """Times in s. count: None for no limit. sample: the share of messages that is printed, 0 to 1."""

    sources: tuple[Subscription, ...]
    engine: Engine
    format: str = "raw"
    delimiter: bytes = b"\n"
    count: int | None = None
    sample: float = 1.0
    rules: Rules | None = None  # --where and --select
    decoder: BatchDecoder | None = None
    print_topic: bool = False
    template: Sequence[Part] | None = None  # --output
    fields: Sequence[Expression] | None = None  # --fields
    pretty: bool | None = None  # None: on a terminal
    ends: EndConditions = field(default_factory=EndConditions)
    fail_if_none: bool = False
    since: float | None = None  # s since 1970: the time of the first message of new channels
    partition: int | None = None  # the only one that is read
    offset: int | None = None  # where partitions begin, or, if negative, how many messages before their ends
    peek: bool = False  # print waiting messages without taking them
    max_in_flight: int = 2500
    guarded: tuple[Subscription, ...] = ()  # the sources without /CHANNEL, which get a temporary channel
    operations: OperationsOptions = field(default_factory=OperationsOptions)
    show: bool = True

    @property
    def named_sources(self) -> list[str]:
        """The sources as a user names them: a temporary channel has no name."""
        return [source.topic if source in self.guarded else str(source) for source in self.sources]
