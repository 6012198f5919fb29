"""What a run of q-tail needs, as plain data: the worker never sees click."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.cli.metrics.operations import OperationsOptions
from qtools.engines.contract import EndConditions, Engine
from qtools.names import Subscription

if TYPE_CHECKING:  # few runs filter, and its modules take time to import
    from qtools.flow.filter import Filter


@dataclass(frozen=True, slots=True)
class TailOptions:
    """Times in s; `count` None is without end; `sample` is the share that is printed, 0..1."""

    sources: tuple[Subscription, ...]
    engine: Engine
    format: str = "raw"
    delimiter: bytes = b"\n"
    count: int | None = None
    sample: float = 1.0
    rules: Filter | None = None  # what is printed, and how
    print_topic: bool = False
    ends: EndConditions = field(default_factory=EndConditions)
    fail_if_none: bool = False
    since: float | None = None  # s since 1970: where new channels begin
    peek: bool = False  # look, and take nothing
    max_in_flight: int = 2500
    guarded: tuple[Subscription, ...] = ()  # those whose temporary channel the user did not name
    operations: OperationsOptions = field(default_factory=OperationsOptions)
    show: bool = True
