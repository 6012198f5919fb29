"""q-to-file replay's command line: flags → ReplayOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.schemas.options import decode_options, decoder_if_given
from qtools.cli.types import Duration, Integer, Number, Size
from qtools.errors import UsageError
from qtools.to_file.time_type import TimeType


@program(
    "q-to-file replay",
    epilog="""
\b
Examples:
  q-to-file replay /var/archive events.again
  q-to-file replay s3://bucket/old events --since 2026-11-23T08:00 --until 2026-11-24 --rate 500
  q-to-file replay /var/archive purchases --where '.type == "purchase"' --on-error skip
  q-to-file replay /var/archive orders.json --decode avro --schema order.avsc --select .
  q-to-file replay s3://bucket/old events --checkpoint pos --s3-endpoint http://10.0.0.7:8333

Exit status: 0 all messages were confirmed, 1 not all (the log says up to where), 2 usage, 3 could not start.
""",
)
@click.argument("url", metavar="URL")
@click.argument("topic")
@click.option(
    "--since", type=TimeType(), metavar="TIME", help="Send only messages that a broker accepted at TIME or later."
)
@click.option(
    "--until",
    type=TimeType(),
    metavar="TIME",
    help="Send only messages that a broker accepted before TIME. If the format has no timestamps, --since and --until "
    "select whole files: those with such a message.",
)
@shared.filter_options("fail")
@decode_options("which --where and --select see; what is sent is the body as it was, unless --select makes another")
@click.option("--from-topic", default="", metavar="TOPIC", help="The topic to send, if the archive has several.")
@click.option(
    "--rate", type=Number(0), default=None, metavar="N", help="Send at most N messages a second.  [default: no limit]"
)
@click.option(
    "--checkpoint",
    default="",
    metavar="FILE",
    help="Save in FILE up to which position everything is confirmed; the next run goes on there.",
)
@click.option(
    "--on-oversize",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do with a message over the broker's limit. It is logged in both cases.",
)
@shared.delimiter_option(r"The bytes that end a raw message.  [default: \n]")
@shared.null_option
@click.option(
    "--s3-endpoint", default="", metavar="URL", help="URL of an S3 server other than that of AWS: http://HOST:PORT."
)
@click.option("--batch-count", type=Integer(1), default=5000, show_default=True, metavar="N",
              help="Most messages in one MPUB command.")  # fmt: skip
@click.option("--batch-bytes", type=Size(1), default="1MiB", show_default=True, metavar="SIZE",
              help="Most bytes in one MPUB command.")  # fmt: skip
@click.option(
    "--retry-timeout",
    type=Duration(0),
    default=60.0,
    metavar="DURATION",
    help="Give up if no broker has accepted anything for DURATION.  [default: 60s]",
)
@shared.create_topics_option
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(url: str, topic: str, **given: Any) -> int:
    """Publish the messages of an archive to TOPIC, with unchanged bodies.

    URL is s3://BUCKET/PREFIX, gs://, az://, file:// or a directory. Files are read in the order of their earliest
    message, and compared with their manifests. After a connection is lost, messages without a confirmation are sent
    again: no message is lost, but some may arrive twice.
    """  # fmt: skip
    from qtools.cli.broker import check_names, engine_of, topic_of
    from qtools.cli.run import run_program
    from qtools.to_file.read.replay_plan import TimeSpan
    from qtools.to_file.read.replay_run import ReplayOptions, replay

    show = shared.set_up_logging("q-to-file replay", given)
    since, until = given.pop("since"), given.pop("until")
    if since is not None and until is not None and since >= until:
        raise UsageError("--since is not before --until: there is nothing between them")
    decode, decode_key = given["decode"] or "", given["decode_key"] or ""
    readers = (given["where"], given["select"])
    decoder = decoder_if_given(given, readers, "--where, or --select (. sends it as JSON)")
    address, topic = topic_of(topic)
    engine = engine_of("q-to-file", given, address)
    check_names(engine, topics=[topic])
    options = ReplayOptions(
        url=url,
        topic=topic,
        engine=engine,
        endpoint=given.pop("s3_endpoint"),
        span=TimeSpan(since, until),
        delimiter=shared.delimiter_of(given),
        rules=shared.filter_of(given, "fail"),
        decoder=decoder,
        decode=decode,
        decode_key=decode_key,
        new_topics=shared.new_topics_of(given),
        rate=given.pop("rate") or 0.0,
        skip_oversize=given.pop("on_oversize") == "skip",
        show=show,
        **given,
    )
    return run_program(lambda signals: replay(options, signals))


if __name__ == "__main__":
    main()
