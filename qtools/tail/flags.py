"""Checks the flags of q-tail together. In: the values from click. Out: TailOptions, or UsageError."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypedDict, cast

from qtools.cli import options as shared
from qtools.cli.broker import check_names, engine_of, topics_of
from qtools.cli.flag_rules import Excludes, check_rules
from qtools.cli.schemas.options import decoder_if_given
from qtools.errors import UsageError
from qtools.names import EPHEMERAL, LONGEST_NAME, is_ephemeral, parse_source
from qtools.tail.options import TailOptions

if TYPE_CHECKING:
    from qtools.expressions.expression import Expression
    from qtools.tail.template import Part

RULES = (
    Excludes("output", ("print_topic", "fields", "pretty"), "--output says all that is printed: leave out {other}"),
    Excludes(
        "fields", ("select", "print_topic", "delimiter", "null", "pretty"),
        "--fields says what is printed: leave out {other}",
    ),
    Excludes("pretty", ("print_topic", "delimiter", "null"), "--pretty is for people: leave out {other}"),
    Excludes(
        "peek", ("since", "partition", "offset", "until_empty", "until_now", "idle_timeout"),
        "--peek reads once, and takes nothing: it cannot be used with {other}",
    ),
)  # fmt: skip


class TailFlags(TypedDict):
    """The flags that q-tail reads itself."""

    count: int | None
    format: str
    output: str | None
    fields: str | None
    pretty: bool | None
    delimiter: bytes | None
    null: bool
    print_topic: bool
    sample: float
    since: float | None
    partition: int | None
    offset: int | None
    peek: bool
    max_in_flight: int | None
    fail_if_none: bool


def options_of(sources: tuple[str, ...], given: dict[str, Any], *, show: bool) -> TailOptions:
    """The options for the flags in `given`; UsageError if they do not go together. show: --quiet was not given."""
    flags = cast("TailFlags", given)
    check_rules(given, RULES)
    if flags["format"] != "raw" and (flags["delimiter"] is not None or flags["null"] or flags["print_topic"]):
        raise UsageError("--delimiter, -0 and --print-topic go with --format raw only")
    if flags["format"] != "raw" and (flags["output"] is not None or flags["pretty"]):
        other = "--output" if flags["output"] is not None else "--pretty"
        raise UsageError(f"{other} is a format of its own: leave out --format {flags['format']}")
    form = "tsv" if flags["fields"] is not None and flags["format"] == "raw" else flags["format"]
    if (flags["fields"] is not None) != (form in ("tsv", "csv")):
        raise UsageError("--fields and --format tsv or csv go together: --fields '.id,.user.name' --format csv")
    own = f"q-tail-{os.getpid()}-{os.urandom(3).hex()}{EPHEMERAL}"
    address, names = topics_of(sources, "q-tail reads from")
    parsed = tuple(dict.fromkeys(parse_source(name, own, LONGEST_NAME) for name in names))
    guarded = tuple(source for source in parsed if source.channel == own)
    if flags["peek"] and guarded:
        raise UsageError(
            "--peek needs the name of a channel, as in TOPIC/CHANNEL; if the topic has no channel yet, any name will do"
        )
    if given["since"] is not None and given["offset"] is not None:  # also for the offset 0
        raise UsageError("--since and --offset both say where to begin: leave one out")
    for flag in ("partition", "offset"):
        if given[flag] is not None and not all(is_ephemeral(source.channel) for source in parsed):
            raise UsageError(f"--{flag} reads without a consumer group, and commits nothing: leave out /CHANNEL")
    others = dict(given)  # each of the functions below takes its own flags out of it
    if given["decode"] is not None and given["select"] is None:
        others["select"] = "."  # the decoded value is printed, not the body
    reads_keys = form in ("envelope", "msgpack", "json") or others["where"] is not None
    decoder = decoder_if_given(
        others, [others["select"], reads_keys], "--where, --select or --format envelope", shows_keys=True
    )
    engine = engine_of("q-tail", others, address)
    check_names(engine, parsed)
    return TailOptions(
        sources=parsed,
        engine=engine,
        format=form,
        template=None if flags["output"] is None else _template(flags["output"]),
        fields=None if flags["fields"] is None else _fields(flags["fields"]),
        pretty=flags["pretty"],
        delimiter=shared.delimiter_of(others, may_be_empty=True),
        count=flags["count"],
        sample=flags["sample"],
        rules=shared.filter_of(others, "skip"),
        decoder=decoder,
        print_topic=flags["print_topic"],
        ends=shared.ends_of(others),
        fail_if_none=flags["fail_if_none"],
        since=flags["since"],
        partition=flags["partition"],
        offset=flags["offset"],
        peek=flags["peek"],
        max_in_flight=flags["max_in_flight"] or engine.capabilities.default_max_in_flight,
        guarded=guarded,
        operations=shared.operations_of(others),
        show=show,
    )


def _template(text: str) -> list[Part]:
    from qtools.tail.template import parse_template

    return parse_template(text)


def _fields(text: str) -> list[Expression]:
    from qtools.tail.columns import parse_fields

    return parse_fields(text)
