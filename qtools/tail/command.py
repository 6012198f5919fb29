"""q-tail's command line: flags → TailOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.schemas.options import decode_options
from qtools.cli.types import Integer, Number
from qtools.errors import UsageError


@program(
    "q-tail",
    habits={"topic": "the topic is an argument: q-tail TOPIC[/CHANNEL]"},
    epilog="""
\b
Examples:
  q-tail letters/me -n 2
  q-tail events --where '.type == "purchase" and .amount > 100' --select '{amount}'
  q-tail nsq://10.0.0.5:4150/events --sample 0.01
  q-tail events/archive --until-empty --format envelope > events.jsonl
  q-tail kafka://k1:9092/orders --decode avro --schema-registry http://registry:8081
  q-tail orders payments --print-topic --broker nsq+lookupd://10.0.0.1:4161,10.0.0.2:4161

Exit status: 0 done, stdout closed by its reader, or SIGTERM; 1 failed, 2 usage, 3 could not start.
""",
)
@click.argument("sources", nargs=-1, required=True, metavar="TOPIC[/CHANNEL]...")
@click.option(
    "--count",
    "-n",
    type=Integer(1),
    metavar="N",
    help="End after N messages of all topics together.  [default: no limit]",
)
@shared.format_option(
    "raw: the body and the delimiter. envelope: a line of JSON with the body, id, timestamp and so on. msgpack: the "
    "same in binary. length32: a 4-byte length and the body. q-pipe reads these. json: the envelope with the body as "
    "JSON, where it is JSON. tsv, csv: the values of --fields.",
    "json", "tsv", "csv",
)  # fmt: skip
@click.option(
    "--output",
    "-o",
    default=None,
    metavar="TEMPLATE",
    help="Print TEMPLATE for each message: %t topic, %T timestamp in ms, %k key, %s body, %S its length, %p partition, "
    "%o offset, %h headers, %i id, %a attempts, %{EXPR} the result of an expression.",
)
@click.option(
    "--fields",
    default=None,
    metavar="EXPR,...",
    help="Print the results of these expressions as the columns of a line, with --format tsv or csv.  [default: tsv]",
)
@click.option(
    "--pretty/--no-pretty",
    default=None,
    help="Print messages for people: the time, and JSON highlighted and indented.  [default: on a terminal]",
)
@shared.delimiter_option(
    r"The bytes after each raw message, with the escapes \n \t \0 \xHH; '' for none.  [default: \n]"
)
@shared.null_option
@click.option("--print-topic", is_flag=True, help="Begin each raw message with `TOPIC | `.")
@click.option(
    "--sample",
    type=Number(0, 1),
    default=1.0,
    metavar="SHARE",
    help="Print a random SHARE of the messages, 0 to 1; the others are finished without being printed.  [default: 1]",
)
@shared.filter_options("skip")
@decode_options("which is printed, and which --where and --select see")
@shared.end_options
@click.option(
    "--partition",
    type=Integer(0),
    metavar="N",
    help="Read only partition N of each topic; Kafka, and TOPIC without /CHANNEL.  [default: all partitions]",
)
@click.option(
    "--offset",
    type=Integer(-(2**62), 2**62),
    metavar="N|-N",
    help="Begin at offset N of each partition, or N messages before its end; Kafka, and TOPIC without /CHANNEL.  "
    "[default: the end]",
)
@click.option(
    "--peek",
    is_flag=True,
    help="Print the first 10 (or -n) matching messages that wait in a channel, and leave them there; their attempts "
    "are not counted up. nsqd and RabbitMQ cannot do this.",
)
@shared.consumer_options
@shared.operations_within("2s")  # after a signal, a reader of stdout that has stalled is not waited for any longer
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(sources: tuple[str, ...], **given: Any) -> int:
    """Print the messages of channels to stdout.

    A message is finished when it is written to stdout; other messages are requeued. Without /CHANNEL,
    q-tail uses a new temporary channel, which gets a copy of each message that is published from now on;
    other channels are not affected. On a terminal, control characters are made visible; a pipe gets the
    bytes unchanged.
    """  # fmt: skip
    import sys

    from qtools.cli.run import run_program
    from qtools.tail.app import tail
    from qtools.tail.flags import options_of

    show = shared.set_up_logging("q-tail", given)
    options = options_of(sources, given, show=show)
    if sys.stdout is None:
        raise UsageError("stdout is closed: there is nowhere to print to")
    return run_program(lambda signals: tail(options, signals))


if __name__ == "__main__":
    main()
