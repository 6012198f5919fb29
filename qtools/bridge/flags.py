"""Checks the flags of q-bridge together. In: the values from click. Out: BridgeOptions, or UsageError."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from qtools.bridge.options import BridgeOptions
from qtools.cli import options as shared
from qtools.cli.broker import check_names, engines_of, topics_of
from qtools.cli.flag_rules import Excludes, Needs, check_rules, written
from qtools.cli.schemas.options import decoder_if_given
from qtools.errors import UsageError
from qtools.names import LONGEST_NAME, parse_source

CHANNEL = "q-bridge"
DEDUPE_WINDOW = 3600.0  # s
DEDUPE_KEYS = 10_000_000

SEES_NEW_ONLY = "{flag} and {other} do not go together: {flag} sees only what is published after it starts"
SENDS_NOTHING = "{flag} and {other} do not go together: {flag} sends nothing"
OF_A_SENDING_RUN = ("rate", "defer", "dedupe", "metrics_address", "statsd_address")

RULES = (
    Excludes(
        "redrive", ("to", "routes", "where", "select", "decode", "decode_key", "dedupe", "dry_run", "explain"),
        "--redrive puts messages back as they were: {other} does not go with it",
    ),
    Excludes("dry_run", OF_A_SENDING_RUN, SENDS_NOTHING),
    Excludes("explain", OF_A_SENDING_RUN, SENDS_NOTHING),
    Excludes("routes", ("select",), "--select goes with --to; in a routes file each route has a select of its own"),
    Needs(("dedupe_window", "dedupe_keys", "dedupe_file"), "dedupe", "{flag} goes with --dedupe"),
)  # fmt: skip


class BridgeFlags(TypedDict):
    """The flags that only q-bridge has, and --max-in-flight, --count and --fail-if-none."""

    to: tuple[str, ...]
    routes: str | None
    where: str | None
    select: str | None
    balance: str
    on_error: str | None
    dead_letter_topic: str | None
    max_attempts: int | None
    max_topics: int
    dedupe: str | None
    dedupe_window: float | None
    dedupe_keys: int | None
    dedupe_file: str | None
    redrive: bool
    rate: float | None
    defer: float
    count: int | None
    dry_run: bool
    explain: bool
    since: float | None
    format: str | None
    max_in_flight: int | None
    fail_if_none: bool


def options_of(sources: tuple[str, ...], given: dict[str, Any], *, show: bool) -> BridgeOptions:
    """The options for the flags in `given`; UsageError if they do not go together. show: --quiet was not given."""
    flags = cast("BridgeFlags", given)
    if not sources and not flags["explain"]:
        raise UsageError("name a topic to read: TOPIC[/CHANNEL]")
    check_rules(given, RULES)
    if flags["format"] is not None and (sources or not flags["explain"]):
        raise UsageError("--format says what --explain reads from stdin: it goes with --explain, and without a topic")
    if not flags["redrive"] and bool(flags["to"]) is bool(flags["routes"]):
        raise UsageError("give --to TOPIC or --routes FILE" + (", not both" if flags["to"] else ""))
    if flags["redrive"] and flags["on_error"] == "pass":
        raise UsageError("--on-error pass has no destination for a message that is not a dead letter")
    address, names = topics_of(sources, "q-bridge reads from")
    to_address, to = topics_of(flags["to"], "q-bridge sends to", template=True)
    mode = "--explain" if flags["explain"] else "--dry-run" if flags["dry_run"] else ""
    others = dict(given)  # each of the functions below takes its own flags out of it
    if given["decode"] is not None and flags["explain"] and not sources:
        raise UsageError("--explain without a topic reads JSON: pipe what q-tail --decode prints into it")
    readers = [given[name] for name in ("where", "select", "routes", "key", "headers", "dedupe", "dedupe_id")]
    decoder = decoder_if_given(
        others,
        [*readers, *("\\(" in name for name in flags["to"])],
        "--where, --routes, --key, --header, --dedupe, --dedupe-id, a template of --to, or --select (. sends JSON)",
    )
    if flags["redrive"]:
        others["until_empty"] = not others["until_now"]
    engine, to_engine = engines_of("q-bridge", others, address, to_address)
    if mode and not engine.capabilities.retention:
        for name in ("until_empty", "until_now"):
            if given[name]:
                raise UsageError(SEES_NEW_ONLY.format(flag=mode, other=written(name)))
    parsed = tuple(dict.fromkeys(parse_source(name, CHANNEL, LONGEST_NAME) for name in names))
    check_names(to_engine or engine, topics=[topic for topic in to if "\\(" not in topic], flag="--to")
    check_names(engine, parsed)
    if flags["dead_letter_topic"]:
        check_names(engine, topics=[flags["dead_letter_topic"]], flag="--dead-letter-topic")
    # What is no dead letter is skipped by a redrive if its topic keeps it all the same.
    skips = flags["redrive"] and engine.capabilities.retention and not flags["dead_letter_topic"]
    return BridgeOptions(
        sources=parsed,
        engine=engine,
        to_engine=to_engine,
        to=to,
        routes=flags["routes"] or "",
        where=flags["where"],
        select=flags["select"],
        decoder=decoder,
        redrive=flags["redrive"],
        dedupe=flags["dedupe"],
        dedupe_window=flags["dedupe_window"] or DEDUPE_WINDOW,
        dedupe_keys=flags["dedupe_keys"] or DEDUPE_KEYS,
        dedupe_file=flags["dedupe_file"] or "",
        on_error=flags["on_error"] or ("drop" if skips else "dead-letter"),
        on_trial=flags["on_error"] is None and (skips or not flags["redrive"]),
        dead_letter_topic=flags["dead_letter_topic"] or "",
        max_attempts=flags["max_attempts"] or 0,
        max_topics=flags["max_topics"],
        balance=flags["balance"],
        rate=flags["rate"] or 0.0,
        defer=flags["defer"],
        since=flags["since"],
        max_in_flight=flags["max_in_flight"] or engine.capabilities.default_max_in_flight,
        # --explain of live messages explains one, unless --count says otherwise.
        count=1 if flags["explain"] and sources and flags["count"] is None else flags["count"],
        ends=shared.ends_of(others),
        keying=shared.keying_of(others),
        new_topics=shared.new_topics_of(others),
        fail_if_none=flags["fail_if_none"],
        dry_run=flags["dry_run"],
        explain=flags["explain"],
        reads_envelopes=flags["format"] == "envelope",
        operations=shared.operations_of(others),
        show=show,
    )
