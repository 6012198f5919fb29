"""The flags that q-admin's subcommands share. In: click's values. Out: an engine, names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.broker import check_names, engine_of, topics_of
from qtools.engines.contract import Engine
from qtools.names import LONGEST_NAME, Subscription, check_channel, check_topic

json_option = click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each topic.")


def sort_option(*columns: str) -> Callable[[Any], Any]:
    """--sort by the name, or by one of `columns`, which a subcommand has."""
    return click.option(
        "--sort",
        type=click.Choice(["name", *columns]),
        default="name",
        show_default=True,
        help="Sort topics by this, the largest first.",
    )


connection = shared.all_of(shared.broker_options, shared.connection_options, shared.logging_options)


def engine_for(given: dict[str, Any], words: Sequence[str]) -> tuple[Engine, tuple[str, ...]]:
    """The engine for the flags and for the addresses in `words`, and the words without their addresses. UsageError,
    StartError."""
    address, names = topics_of(words, "q-admin works on")
    return engine_of("q-admin", given, address), names


def subscriptions_of(engine: Engine, names: Sequence[str]) -> list[Subscription]:
    """TOPIC and TOPIC/CHANNEL as (topic, channel), where channel is "" for a topic; NameInvalid."""
    found = []
    for name in names:
        topic, _, channel = name.partition("/")
        check_topic(topic, LONGEST_NAME)
        if channel or name.endswith("/"):
            check_channel(channel, LONGEST_NAME)
            check_names(engine, [Subscription(topic, channel)])
        else:
            check_names(engine, topics=[topic])
        found.append(Subscription(topic, channel))
    return list(dict.fromkeys(found))
