"""The command line of qtools soak: flags → SoakOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.types import Duration, Integer, Number, Size
from qtools.soak.bodies import MIN_SIZE


@program(
    "qtools soak",
    epilog="""
\b
Examples:
  qtools soak nsq://10.0.0.5:4150 --duration 10m --rate 5000
  qtools soak kafka://k1:9092 --create-topics partitions=12,replicas=3 --ordered
  qtools soak nsq://n1:4150/soak-in --to kafka://k1:9092/soak-out    # while a q-bridge moves them
  qtools soak --json > soak.json || jq '{lost, corrupted}' soak.json

Exit status: 0 nothing was lost or corrupted; 1 something was; 2 usage; 3 could not start.
""",
)
@click.argument("place", required=False, metavar="[URL|TOPIC]")
@click.option(
    "--to", default=None, metavar="URL2/TOPIC2",
    help="Read the messages from there, while a program of yours moves them: a q-bridge, a mirror.  "
    "[default: they are read from where they are published]",
)  # fmt: skip
@click.option(
    "--duration", type=Duration(0.1), default=None, metavar="DURATION",
    help="Publish for DURATION, such as 10m or 8h.  [default: 60s, without --count]",
)  # fmt: skip
@click.option("--count", "-n", type=Integer(1), default=None, metavar="N", help="Publish N messages.")
@click.option(
    "--rate", type=Number(0), default=None, metavar="N",
    help="Publish N messages/s.  [default: as many as are confirmed and read]",
)  # fmt: skip
@click.option(
    "--size", type=Size(MIN_SIZE), default="200", show_default=True, metavar="SIZE",
    help=f"Bytes of each message, at least {MIN_SIZE}.",
)  # fmt: skip
@click.option(
    "--keys", type=Integer(1, 1_000_000), default=16, show_default=True, metavar="N",
    help="Give the messages N keys in turn. Order is judged within each key.",
)  # fmt: skip
@click.option("--ordered", is_flag=True, help="A message out of order within its key is an error.")
@click.option("--no-duplicates", is_flag=True, help="A message that is delivered more than once is an error.")
@click.option(
    "--settle", type=Duration(), default=None, metavar="DURATION",
    help="After publishing, wait for missing messages until none has arrived for DURATION.  "
    "[default: until nothing is left and one message timeout has passed]",
)  # fmt: skip
@click.option(
    "--max-in-flight", type=Integer(1), default=None, metavar="N",
    help="Most messages that may be in flight (received and not finished).  "
    "[default: 2500; with NATS 5000; with Kafka and Redis 10000]",
)  # fmt: skip
@click.option(
    "--separate-reader", is_flag=True,
    help="Read in a process of its own, which you may kill: it is started again. Its id is logged.",
)  # fmt: skip
@shared.create_topics_option
@click.option("--keep", is_flag=True, help="Do not remove the topic and the channel that the test has made.")
@click.option("--json", is_flag=True, help="Print the result as one line of JSON.")
@click.option("--reader-of", default=None, hidden=True)  # what --separate-reader starts
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(place: str | None, **given: Any) -> int:
    """Test a cluster: publish numbered messages, read them, and say which were lost.

    Meanwhile, do to the cluster what you fear: kill brokers, cut the network, fill disks. At the end it prints how many
    messages were lost (confirmed, and never read), doubled, out of order or corrupted, and the latencies. Without a
    TOPIC it makes one of its own, and removes it at the end. Ctrl-C ends the publishing, and the result is printed
    when the rest is read; a second Ctrl-C prints it at once.
    """
    from qtools.cli.run import run_program
    from qtools.soak.app import read_separately, soak
    from qtools.soak.flags import options_of

    show = shared.set_up_logging("qtools soak", given)
    options = options_of(place, given, show=show)
    if given["reader_of"] is not None:
        return run_program(lambda signals: read_separately(options, signals))
    return run_program(lambda signals: soak(options, signals))


if __name__ == "__main__":
    main()
