"""q-to-file's command line: flags → ArchiveOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.types import Duration, Integer, Size
from qtools.errors import UsageError

CHANNEL = "q-to-file"


@program(
    "q-to-file",
    habits={"topic": "the topic is an argument: q-to-file TOPIC[/CHANNEL]"},
    subcommands={"verify": "qtools.to_file.read.verify_command", "replay": "qtools.to_file.read.replay_command"},
    epilog="""
\b
Examples:
  q-to-file events --output-dir /var/archive --gzip
  q-to-file events/archive --output-dir /var/archive --until-empty --skip-if-running --quiet
  q-to-file events --output-dir /var/archive --compression zstd --partition-by .timestamp
  q-to-file --topic-pattern '^events[.]' --output-dir /var/archive --broker nsq+lookupd://10.0.0.1
  q-to-file events --output s3://bucket/archive --gzip --rotate-size 64MB --rotate-interval 10m
  q-to-file verify /var/archive
  q-to-file replay /var/archive events.again

`q-to-file verify --help` and `q-to-file replay --help` tell how an archive is checked, and put back into a topic.

Exit status: 0 done, or SIGTERM; 1 failed, 2 usage, 3 could not start, another run in the work directory
included.
""",
)
@click.argument("sources", nargs=-1, metavar="[TOPIC[/CHANNEL]]...")
@click.option(
    "--output",
    "--output-dir",
    "-o",
    "output_dir",
    metavar="DIR|URL",
    help="Where finished files go: a directory, which is made if it is not there, or s3://BUCKET/PREFIX, gs://…, az://….",
)
@click.option(
    "--work-dir",
    metavar="DIR",
    help="Where files grow; for one process at a time. Another file system is fine.  [default: .work in the output "
    "or spool directory]",
)
@click.option(
    "--spool-dir",
    metavar="DIR",
    help="Where finished files wait to be uploaded.  [default: a place of its own below $XDG_STATE_HOME/qtools/spool]",
)
@click.option(
    "--no-spool",
    is_flag=True,
    help="Use no disk: what is synced together is put as an object, and finished when the store has it.",
)
@click.option("--s3-endpoint", metavar="URL", help="An S3 server that is not AWS's.  [default: $AWS_ENDPOINT_URL_S3]")
@click.option(
    "--topic-pattern",
    metavar="REGEX",
    help="Every topic in which it is found, those included that come later; ^ and $ anchor it.",
)
@click.option("--topic-glob", metavar="GLOB", help="The same for whole names with * and ?.")
@click.option(
    "--topic-refresh",
    type=Duration(0.1),
    default="15s",
    show_default=True,
    metavar="DURATION",
    help="How often to look for topics that match.",
)
@click.option(
    "--channel", default=CHANNEL, show_default=True, metavar="NAME", help="For topics given without /CHANNEL."
)
@shared.format_option(
    "raw: the body and the delimiter. envelope: a line of JSON with all that is known. msgpack: the same, "
    "binary. length32: a 4-byte length and the body. All but raw keep bodies that contain the delimiter."
)
@shared.delimiter_option(r"What follows each raw message; \n \t \0 \xHH are understood. Default: \n.")
@shared.null_option
@click.option("--compression", type=click.Choice(["none", "gzip", "zstd"]), default=None, help="Default: none.")
@click.option("--gzip", is_flag=True, help="The same as --compression gzip.")
@click.option(
    "--compression-level", type=Integer(), metavar="N", help="gzip 0..3, zstd 1..19.  [default: gzip 2, zstd 3]"
)
@click.option(
    "--filename-format",
    metavar="TEMPLATE",
    help="<TOPIC> <HOST> <PID> <DATETIME>, strftime's %-codes, and <REV>, which is counted up until nobody has "
    "the name. / makes directories.  [default: <TOPIC>.<HOST><REV>.<DATETIME>.log]",
)
@click.option(
    "--datetime-format", default="%Y-%m-%d_%H", show_default=True, metavar="FORMAT", help="What <DATETIME> is."
)
@click.option("--host-identifier", metavar="TEXT", help="What <HOST> is.  [default: the host's name]")
@click.option("--local-time", is_flag=True, help="Names tell local time instead of UTC.")
@click.option(
    "--partition-by",
    metavar="EXPR",
    help="Each message into the directory of its own time, found in its JSON body: '.timestamp'. Seconds, ms, µs, ns "
    "or ISO 8601; where there is none, the broker's timestamp counts.",
)
@click.option(
    "--partition-format",
    metavar="FORMAT",
    help="That directory, by strftime. Without --partition-by the broker's timestamp counts.  "
    "[default: dt=%Y-%m-%d/hour=%H]",
)
@click.option(
    "--complete-marker",
    is_flag=True,
    help="Put _SUCCESS into a partition when its time plus --lateness is over, and every source has got past that.",
)
@click.option(
    "--lateness",
    type=Duration(),
    metavar="DURATION",
    help="How late a message may come; later ones get a file of their own.  [default: 10m]",
)
@click.option(
    "--dedupe",
    metavar="EXPR",
    help="Archive what producers sent twice once: messages with an equal key, found in their JSON body: '.messageId'.",
)
@click.option(
    "--dedupe-window", type=Duration(1), metavar="DURATION", help="How long keys are remembered.  [default: 1h]"
)
@click.option(
    "--dedupe-keys", type=Integer(1), metavar="N", help="How many at most; 19 bytes each.  [default: 1000000]"
)
@click.option("--dedupe-file", metavar="FILE", help="Where they are kept.  [default: dedupe in the work directory]")
@click.option("--rotate-size", type=Size(1), metavar="SIZE", help="Close a file of so many bytes on disk.")
@click.option("--rotate-interval", type=Duration(1), metavar="DURATION", help="Close a file of that age.")
@click.option("--rotate-count", type=Integer(1), metavar="N", help="Close a file of N messages.")
@click.option(
    "--max-open-files",
    type=Integer(1, 10_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Before there are more, the one that was quiet longest is closed.",
)
@click.option(
    "--sync-interval",
    type=Duration(0.001, 300),
    default=None,
    metavar="DURATION",
    help="Write, fsync and finish what came, at the latest after so long.  [default: 1s; 10s with --no-spool]",
)
@click.option(
    "--sync-count",
    type=Integer(1),
    metavar="N",
    help="… or as soon as N messages came.  [default: half of --max-in-flight]",
)
@click.option(
    "--sync-bytes", type=Size(1), default="4MiB", show_default=True, metavar="SIZE", help="… or so many bytes."
)
@shared.end_options
@click.option("--max-runtime", type=Duration(0.001), metavar="DURATION", help="End after so long, in order.")
@click.option(
    "--skip-if-running", is_flag=True, help="If another run has the work directory, end at once with status 0."
)
@shared.filter_options("pass")
@shared.consumer_options
@shared.operations_options
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(sources: tuple[str, ...], **given: Any) -> int:
    """Archive topics to files.

    Messages are written to a work directory and finished when they are fsynced there. A file that is due (by
    the clock, --rotate-…, SIGHUP, the end) appears whole in the output directory, and never in the place of
    another one. After a crash the next run ends what was left. A full disk pauses, and loses nothing.
    """  # fmt: skip
    from qtools.cli.run import run_program
    from qtools.to_file.app import archive
    from qtools.to_file.flags import options_of

    if not sources and not given["topic_pattern"] and not given["topic_glob"]:
        raise UsageError("give a TOPIC, --topic-pattern or --topic-glob")
    options = options_of(sources, given)
    return run_program(lambda signals: archive(options, signals))


if __name__ == "__main__":
    main()
