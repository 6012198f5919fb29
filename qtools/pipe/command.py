"""q-pipe's command line: flags → PipeOptions → run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, cast

import click

from qtools.cli import options as shared
from qtools.cli.flag_rules import Excludes, Needs, check_rules
from qtools.cli.program import program
from qtools.cli.schemas.options import encode_options, encoders_if_given
from qtools.cli.types import Duration, Integer, Number, Size
from qtools.errors import NameInvalid, UsageError, without_userinfo
from qtools.names import LONGEST_NAME, check_topic, is_valid_name

if TYPE_CHECKING:
    from qtools.engines.url import BrokerUrl
    from qtools.flow.steps import OnError
    from qtools.pipe.options import PipeOptions


@program(
    "q-pipe",
    habits={"topic": "the topic is an argument: q-pipe TOPIC"},
    epilog="""
\b
Examples:
  printf 'a\\nb\\n' | q-pipe letters
  q-pipe nsq://10.0.0.5:4150/events events.jsonl more.jsonl
  find . -name '*.png' -print0 | q-pipe -0 images
  q-pipe purchases --where '.type == "purchase"' --select '{id: .messageId, amount}' events.jsonl
  q-pipe orders --encode avro --schema-registry http://registry:8081 orders.jsonl
  q-pipe --routes routes.toml events.jsonl
  q-tail old/move --format envelope --until-empty | q-pipe new --format envelope
  q-pipe --checkpoint app.pos --on-oversize skip logs app.log
  q-pipe --checkpoint app.pos -F logs '/var/log/app/*.log'

Exit status: 0 all messages were confirmed, 1 not all (the log says up to where), 2 usage, 3 could not start.
""",
)
@click.argument("words", nargs=-1, metavar="TOPIC [FILE]...")
@shared.format_option("Format of the input: raw for messages with a delimiter, or a format that q-tail writes.")
@shared.delimiter_option(
    r"The bytes that end a raw message, with the escapes \n \t \0 \xHH; '' makes each file one message.  "
    r"[default: \n]"
)
@shared.null_option
@click.option(
    "--empty",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="What to do with empty messages, which NSQ does not allow. The summary counts skipped messages.",
)
@click.option(
    "--on-oversize",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do with a message over the broker's limit. It is logged in both cases.",
)
@shared.filter_options("fail")
@encode_options
@click.option(
    "--routes",
    default="",
    metavar="FILE",
    help="Route each message by the routes file FILE, as q-bridge does; the arguments are then [FILE]... without "
    "TOPIC.",
)
@click.option(
    "--rate", type=Number(0), default=None, metavar="N", help="Send at most N messages a second.  [default: no limit]"
)
@click.option(
    "--defer",
    type=Duration(0, 3600),
    default=0.0,
    metavar="DURATION",
    help="Let the broker deliver each message only after DURATION (at most 1h).  [default: at once]",
)
@click.option(
    "--batch-count",
    type=Integer(1),
    default=5000,
    show_default=True,
    metavar="N",
    help="Most messages in one MPUB command.",
)
@click.option(
    "--batch-bytes",
    type=Size(1),
    default="1MiB",
    show_default=True,
    metavar="SIZE",
    help="Most bytes in one MPUB command.",
)
@click.option(
    "--linger",
    type=Duration(0, 3600),
    default=0.0,
    metavar="DURATION",
    help="Wait at most DURATION until a batch is full.  [default: do not wait]",
)
@click.option(
    "--window",
    type=Integer(1, 1000),
    default=8,
    show_default=True,
    metavar="N",
    help="Most batches that may be sent and not yet confirmed.",
)
@click.option(
    "--replicate", is_flag=True, help="Send each message to every nsqd, and wait until all of them have confirmed it."
)
@click.option(
    "--retry-timeout",
    type=Duration(0),
    default=60.0,
    metavar="DURATION",
    help="Give up if no broker has accepted anything for DURATION.  [default: 60s]",
)
@click.option(
    "--skip-bytes",
    type=Integer(0),
    default=0,
    metavar="N",
    help="Skip the first N bytes of the input. A run that failed logs the number with which to go on.",
)
@click.option(
    "--checkpoint",
    default="",
    metavar="FILE",
    help="Save in FILE, or in a file in the directory FILE, up to which position everything is confirmed; the next run "
    "goes on there, in rotated files too. An incomplete last line is left for the next run.",
)
@click.option(
    "--follow",
    "-F",
    is_flag=True,
    help="Do not end, but send what is appended to the files, across rotations, as tail -F does. A quoted glob matches "
    "files that are created later, too.",
)
@click.option(
    "--rotated",
    multiple=True,
    metavar="GLOB",
    help="Where the rotated files are (repeatable); {name} stands for the log's name.  [default: beside the log, as "
    "FILE.1 or FILE-20261128.gz]",
)
@click.option(
    "--on-missing",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do if the file that was read last is missing: end with exit status 1 before anything of that log is "
    "sent, or send the files that exist and end with exit status 1. It is logged in both cases.",
)
@click.option(
    "--skip-if-running", is_flag=True, help="If another run uses the checkpoint, end at once with exit status 0."
)
@shared.publisher_options
@click.option(
    "--partition",
    type=Integer(0),
    metavar="N",
    help="Publish all messages to partition N of the topic, with Kafka.  [default: by the key, or any]",
)
@shared.operations_options
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(words: tuple[str, ...], **given: Any) -> int:
    """Publish the lines of stdin, or of FILEs, to TOPIC.

    Each line is a message; the last one needs no newline. A message counts as sent when the broker has
    confirmed it. After a connection is lost, messages without a confirmation are sent again: no message
    is lost, but as many as fit into one window may arrive twice.
    """  # fmt: skip
    from qtools.cli.run import run_program
    from qtools.pipe.app import pipe

    options = options_of(words, given, show=shared.set_up_logging("q-pipe", given))
    return run_program(lambda signals: pipe(options, signals))


# ── the flags together ──────────────────────────────────────────────────────────────────────────

RULES = (
    Excludes("routes", ("select",), "--select goes with a TOPIC; in a routes file each route has a select of its own"),
    Excludes("routes", ("encode", "encode_key"), "{other} goes with a TOPIC: each topic has a schema of its own"),
    Needs(("encode_key",), "key", "--encode-key encodes the result of --key: give --key too"),
    Excludes("checkpoint", ("skip_bytes",), "give --checkpoint or --skip-bytes, not both"),
    Excludes(
        "follow", ("skip_bytes",), "give --follow or --skip-bytes, not both: --checkpoint remembers where to go on"
    ),
)
NOT_FOLLOWING = (
    Needs(("rotated", "on_missing", "skip_if_running"), "checkpoint", "{flag} goes with --checkpoint or --follow"),
)
FOLLOWING = (Needs(("skip_if_running",), "checkpoint", "{flag} goes with --checkpoint"),)


class PipeFlags(TypedDict):
    """The flags that q-pipe reads itself."""

    partition: int | None
    format: str
    delimiter: bytes | None
    null: bool
    empty: str
    on_oversize: str
    where: str | None
    on_error: OnError | None
    encode: str | None
    routes: str
    rate: float | None
    defer: float
    batch_count: int
    batch_bytes: int
    linger: float
    window: int
    replicate: bool
    retry_timeout: float
    skip_bytes: int
    checkpoint: str
    follow: bool
    rotated: tuple[str, ...]
    on_missing: str
    skip_if_running: bool


def options_of(words: tuple[str, ...], given: dict[str, Any], *, show: bool) -> PipeOptions:
    """The options for the arguments and the flags in `given`; UsageError if they do not go together. show: --quiet was
    not given."""
    from qtools.cli.broker import check_names, engine_of
    from qtools.pipe.options import PipeOptions

    flags = cast("PipeFlags", given)
    routes = flags["routes"]
    address, topic, files = (None, "", words) if routes else _topic_and_files(words)
    _check_files(files, show)
    _check_together(flags, given, files)
    if routes:
        _check_no_topic(files, given)
    else:
        _hint_at_mistaken_words(topic, files, given)
    others = dict(given)  # each of the functions below takes its own flags out of it
    on_error: OnError = "fail"
    if routes or given["key"] is not None or given["headers"]:  # these have errors of their own, also without a filter
        on_error = flags["on_error"] or "fail"
        if flags["where"] is None and given["select"] is None and flags["encode"] is None:
            others["on_error"] = None
    encoder, key_encoder = encoders_if_given(others, topic)
    engine = engine_of("q-pipe", others, address)
    check_names(engine, topics=[topic] if topic else [])
    return PipeOptions(
        topic=topic,
        files=files or ("-",),
        engine=engine,
        format=flags["format"],
        delimiter=shared.delimiter_of(others, may_be_empty=True),
        fail_on_empty=flags["empty"] == "fail",
        skip_oversize=flags["on_oversize"] == "skip",
        operations=shared.operations_of(others),
        rules=shared.filter_of(others, "fail", () if encoder is None else (encoder,)),
        keying=shared.keying_of(others, key_encoder and key_encoder.encode_fitting),
        key_encoder=key_encoder,
        new_topics=shared.new_topics_of(others),
        partition=flags["partition"],
        routes=routes,
        on_error=on_error,
        rate=flags["rate"] or 0.0,
        defer=flags["defer"],
        batch_count=flags["batch_count"],
        batch_bytes=flags["batch_bytes"],
        linger=flags["linger"],
        window=flags["window"],
        replicate=flags["replicate"],
        retry_timeout=flags["retry_timeout"],
        skip_bytes=flags["skip_bytes"],
        checkpoint=flags["checkpoint"],
        follow=flags["follow"],
        rotated=flags["rotated"],
        skip_missing=flags["on_missing"] == "skip",
        skip_if_running=flags["skip_if_running"],
        show=show,
    )


def _check_files(files: tuple[str, ...], show: bool) -> None:
    """Raise UsageError for a URL in the place of a FILE, and for stdin that is closed or read twice."""
    import logging
    import sys

    from qtools.cli import logs
    from qtools.engines.url import is_url

    for name in files:
        if is_url(name):
            raise UsageError(f"{without_userinfo(name)} stands in the place of a FILE; the topic comes first")
    if files.count("-") > 1:
        raise UsageError("stdin (-) can only be read once")
    if not files or "-" in files:
        if sys.stdin is None:
            raise UsageError("stdin is closed: pipe something in, or name a file")
        if sys.stdin.isatty() and show:
            logs.log(logging.WARNING, "reading from the terminal; Ctrl-D ends it")


def _check_together(flags: PipeFlags, given: dict[str, Any], files: tuple[str, ...]) -> None:
    """Raise UsageError for flags that do not go together, or not with these files."""
    follow, checkpoint = flags["follow"], flags["checkpoint"]
    if flags["format"] != "raw" and (flags["delimiter"] is not None or flags["null"]):
        raise UsageError("--delimiter and -0 go with --format raw only")
    if flags["delimiter"] == b"" and (checkpoint or follow):
        raise UsageError("-d '' makes an input one message, and no part is sent: leave out --checkpoint, --follow")
    if follow and (not files or "-" in files):
        raise UsageError("--follow follows files, and stdin is none: name one")
    values = given | {
        "routes": flags["routes"] or None,
        "checkpoint": checkpoint or None,
        "on_missing": flags["on_missing"] == "skip",
    }
    check_rules(values, (*RULES, *(FOLLOWING if follow else NOT_FOLLOWING)))
    if len(files) > 1 and not all("{name}" in each for each in flags["rotated"]):
        raise UsageError("with several files each --rotated needs {name}, which stands for the file's name")


def _hint_at_mistaken_words(topic: str, files: tuple[str, ...], given: dict[str, Any]) -> None:
    """Raise UsageError if a FILE does not exist because the arguments were meant in another way."""
    import os
    import shlex

    if len(files) != 1 or files[0] == "-" or os.path.lexists(files[0]):
        return
    missing = f"cannot read {files[0]}: No such file or directory"
    if os.path.isfile(topic):
        raise UsageError(f"{missing}; {topic} is a file: the topic comes first: q-pipe {files[0]} {topic}")
    if not (given["follow"] or given["checkpoint"] or "/" in files[0] or "." in files[0]):
        raise UsageError(f"{missing}; to send the text itself: echo {shlex.quote(files[0])} | q-pipe {topic}")


def _check_no_topic(files: tuple[str, ...], given: dict[str, Any]) -> None:
    """Raise UsageError if the first argument with --routes is a topic, and no file of that name exists."""
    import os

    if files and is_valid_name(files[0]) and not given["follow"] and not os.path.lexists(files[0]):
        raise UsageError(f"with --routes there is no TOPIC; {files[0]!r} is taken for a file, and there is none")


def _topic_and_files(words: tuple[str, ...]) -> tuple[BrokerUrl | None, str, tuple[str, ...]]:
    """TOPIC [FILE]… → the broker that the topic's address names, the topic, the files; click's errors where there is
    no topic, or none that can be."""
    if not words:
        raise click.MissingParameter(param_hint="'TOPIC'", param_type="argument")
    from qtools.cli.broker import topic_of

    address, topic = topic_of(words[0])
    try:
        return address, check_topic(topic, LONGEST_NAME), words[1:]
    except NameInvalid as error:
        import os

        text = f"{error}; it is a file, and the topic comes before it" if os.path.isfile(words[0]) else str(error)
        raise click.BadParameter(text, param_hint="'TOPIC'") from error


if __name__ == "__main__":
    main()
