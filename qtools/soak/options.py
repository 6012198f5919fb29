"""The options of a run of qtools soak, as plain data: the code of the run does not depend on click."""

from __future__ import annotations

from dataclasses import dataclass

from qtools.engines.contract import Engine, NewTopics
from qtools.names import Subscription


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """Times in s. The messages are published to `topic` of `engine`, and read from `subscription` of `to_engine`, which
    is the same engine unless messages are moved in between.

    is_own_topic, is_own_channel: this run makes them, and removes them. moves: whether what is read comes from another
    topic or engine, to which a program of the user's moves it. duration, count: None for no limit. rate: messages/s, 0
    for as fast as possible. settle: None for until nothing is left.
    """

    engine: Engine
    to_engine: Engine
    topic: str
    subscription: Subscription
    run: bytes
    is_own_topic: bool = True
    is_own_channel: bool = True
    moves: bool = False
    duration: float | None = None
    count: int | None = None
    rate: float = 0.0
    size: int = 200
    keys: int = 16
    settle: float | None = None
    max_in_flight: int = 2500
    new_topics: NewTopics | None = None
    separate_reader: bool = False
    no_duplicates: bool = False
    ordered: bool = False
    keep: bool = False
    as_json: bool = False
    show: bool = True
