"""Checks the flags of q-exec together. In: the values from click. Out: ExecOptions, or UsageError."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from qtools.cli import options as shared
from qtools.cli.broker import check_names, engine_of, topics_of
from qtools.cli.flag_rules import Excludes, check_rules
from qtools.errors import UsageError
from qtools.exec.options import ExecOptions
from qtools.exec.outcomes import parse_rules
from qtools.names import LONGEST_NAME, parse_source

RULES = (
    Excludes(
        "keep", ("batch_wait", "exit", "tag", "group", "replace"),
        "--keep starts one command for all messages: {other} does not go with it",
    ),
)  # fmt: skip


class ExecFlags(TypedDict):
    """The flags that q-exec reads itself."""

    jobs: int
    batch: int
    batch_wait: float | None
    keep: bool
    format: str
    replace: str | None
    exit: tuple[str, ...]
    timeout: float | None
    backoff: float | None
    max_backoff: float | None
    max_attempts: int | None
    dead_letter_topic: str | None
    tag: bool
    group: bool
    count: int | None
    since: float | None
    max_in_flight: int | None
    fail_if_none: bool


def options_of(sources: tuple[str, ...], command: tuple[str, ...], given: dict[str, Any], *, show: bool) -> ExecOptions:
    """The options for the flags in `given`; UsageError if they do not go together. show: --quiet was not given."""
    flags = cast("ExecFlags", given)
    if not command or not command[0]:
        raise UsageError("write the command after --, as in q-exec TOPIC/CHANNEL -- COMMAND")
    check_rules(given, RULES)
    if flags["keep"] and flags["batch"] > 1:
        raise UsageError("--keep starts one command for all messages: --batch does not go with it")
    if flags["batch_wait"] is not None and flags["batch"] == 1:
        raise UsageError("--batch-wait goes with --batch")
    replace = "{}" if flags["replace"] is None else flags["replace"]
    if replace and not flags["keep"] and any(replace in word for word in command[1:]) and flags["batch"] > 1:
        raise UsageError(
            f"{replace} stands for one body, and --batch gives the command several: leave --batch out, or name "
            "another text with --replace"
        )
    if flags["format"] != "raw" and (given["delimiter"] is not None or given["null"]):
        raise UsageError("--delimiter and -0 go with --format raw only")
    backoff = 1.0 if flags["backoff"] is None else flags["backoff"]
    longest = max(300.0, backoff) if flags["max_backoff"] is None else flags["max_backoff"]
    if longest < backoff:
        raise UsageError("--max-backoff is shorter than --backoff")
    others = dict(given)  # each of the functions below takes its own flags out of it
    address, names = topics_of(sources, "q-exec reads from")
    for name in names:
        if "/" not in name:
            raise UsageError(
                f"name a channel of {name}, as in {name}/NAME: its messages are shared by all q-execs that name it"
            )
    engine = engine_of("q-exec", others, address)
    parsed = tuple(dict.fromkeys(parse_source(name, "", LONGEST_NAME) for name in names))
    check_names(engine, parsed)
    if flags["dead_letter_topic"]:
        check_names(engine, topics=[flags["dead_letter_topic"]], flag="--dead-letter-topic")
    if flags["max_in_flight"] is not None and flags["max_in_flight"] < flags["batch"]:
        raise UsageError(f"--max-in-flight {flags['max_in_flight']} is less than a batch of --batch {flags['batch']}")
    on_error = given["on_error"] or "dead-letter"
    if others["on_error"] == "dead-letter":
        others["on_error"] = "fail"  # what becomes of such messages is decided in a run
    return ExecOptions(
        sources=parsed,
        engine=engine,
        command=command,
        keeps=flags["keep"],
        format=flags["format"],
        delimiter=shared.delimiter_of(others),
        replace=replace,
        batch=flags["batch"],
        batch_wait=1.0 if flags["batch_wait"] is None else flags["batch_wait"],
        jobs=flags["jobs"],
        where_rules=shared.filter_of(others, "fail"),
        on_error=on_error,
        rules=parse_rules(flags["exit"]),
        timeout=flags["timeout"] or 0.0,
        backoff=backoff,
        longest_backoff=longest,
        max_attempts=flags["max_attempts"] or 0,
        dead_letter_topic=flags["dead_letter_topic"] or "",
        new_topics=shared.new_topics_of(others),
        tag=flags["tag"],
        group=flags["group"],
        count=flags["count"],
        ends=shared.ends_of(others),
        fail_if_none=flags["fail_if_none"],
        since=flags["since"],
        max_in_flight=flags["max_in_flight"] or 0,
        operations=shared.operations_of(others),
        show=show,
    )
