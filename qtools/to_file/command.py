"""q-to-file's command line: flags → ArchiveOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.schemas.options import decode_options
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

`q-to-file verify` checks an archive, and `q-to-file replay` publishes it again; see their --help.

Exit status: 0 done, or SIGTERM; 1 failed, 2 usage, 3 could not start, for example because another run
uses the work directory.
""",
)
@click.argument("sources", nargs=-1, metavar="[TOPIC[/CHANNEL]]...")
@click.option(
    "--output",
    "--output-dir",
    "-o",
    "output_dir",
    metavar="DIR|URL",
    help="Where finished files are stored: a directory, which is created if needed, or s3://BUCKET/PREFIX, gs://…, az://….",
)
@click.option(
    "--work-dir",
    metavar="DIR",
    help="The directory of unfinished files, for one process at a time; it may be on another file system than the "
    "output.  [default: .work in the output or spool directory]",
)
@click.option(
    "--spool-dir",
    metavar="DIR",
    help="The directory of finished files that wait to be uploaded.  [default: in $XDG_STATE_HOME/qtools/spool]",
)
@click.option(
    "--no-spool",
    is_flag=True,
    help="Use no disk: write the messages of each sync interval as one object, and finish them when it is stored.",
)
@click.option(
    "--s3-endpoint", metavar="URL", help="URL of an S3 server other than that of AWS.  [default: $AWS_ENDPOINT_URL_S3]"
)
@click.option(
    "--topic-pattern",
    metavar="REGEX",
    help="Archive each topic whose name contains a match of REGEX, topics that are created later included. For whole "
    "names write ^…$.",
)
@click.option("--topic-glob", metavar="GLOB", help="Archive each topic whose whole name matches GLOB, with * and ?.")
@click.option(
    "--topic-refresh",
    type=Duration(0.1),
    default="15s",
    show_default=True,
    metavar="DURATION",
    help="Interval at which to look for new topics that match.",
)
@click.option(
    "--channel", default=CHANNEL, show_default=True, metavar="NAME", help="The channel of topics without /CHANNEL."
)
@shared.format_option(
    "raw: the body and the delimiter. envelope: a line of JSON with the body, id, timestamp and so on. msgpack: the "
    "same in binary. length32: a 4-byte length and the body. In all but raw, a body may contain the delimiter."
)
@shared.delimiter_option(r"The bytes after each raw message, with the escapes \n \t \0 \xHH.  [default: \n]")
@shared.null_option
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "zstd"]),
    default=None,
    help="Compression of the files.  [default: none]",
)
@click.option("--gzip", is_flag=True, help="The same as --compression gzip.")
@click.option(
    "--compression-level",
    type=Integer(0),
    metavar="N",
    help="0 to 3 for gzip, 1 to 19 for zstd.  [default: gzip 2, zstd 3]",
)
@click.option(
    "--filename-format",
    metavar="TEMPLATE",
    help="Name of the files. It may contain <TOPIC>, <HOST>, <PID>, <DATETIME>, the %-codes of strftime, / for "
    "directories, and <REV>, a number that is raised until the name is free; with Kafka also <PARTITION> and "
    "<OFFSETS>.  [default: <TOPIC>.<HOST><REV>.<DATETIME>.log; with Kafka <TOPIC>.<PARTITION>.<OFFSETS>.log]",
)
@click.option(
    "--datetime-format",
    default="%Y-%m-%d_%H",
    show_default=True,
    metavar="FORMAT",
    help="Format of <DATETIME>, for strftime.",
)
@click.option("--host-identifier", metavar="TEXT", help="Value of <HOST>.  [default: the host name]")
@click.option("--local-time", is_flag=True, help="Use local time in names instead of UTC.")
@click.option(
    "--partition-by",
    metavar="EXPR",
    help="Store each message in the directory of its own time: the value of EXPR in its JSON body, such as "
    "'.timestamp', in "
    "s, ms, µs or ns since 1970 or in ISO 8601. Without a value, the broker's timestamp counts.",
)
@click.option(
    "--partition-format",
    metavar="FORMAT",
    help="Format of that directory, for strftime. Without --partition-by the broker's timestamp counts.  "
    "[default: dt=%Y-%m-%d/hour=%H]",
)
@click.option(
    "--complete-marker",
    is_flag=True,
    help="Create the file _SUCCESS in a partition when its time plus --lateness is over, and every "
    "source has delivered the earlier messages.",
)
@click.option(
    "--lateness",
    type=Duration(),
    metavar="DURATION",
    help="How late a message may arrive; later messages are stored in another file.  [default: 10m]",
)
@click.option(
    "--dedupe",
    metavar="EXPR",
    help="Archive only one of several messages with the same key: the value of EXPR in the JSON body, such as "
    "'.messageId'.",
)
@click.option(
    "--dedupe-window",
    type=Duration(1),
    metavar="DURATION",
    help="How long keys of --dedupe are remembered.  [default: 1h]",
)
@click.option(
    "--dedupe-keys",
    type=Integer(1),
    metavar="N",
    help="Most keys of --dedupe that are remembered; a key takes 19 bytes.  [default: 1000000]",
)
@click.option(
    "--dedupe-file", metavar="FILE", help="The file with the keys of --dedupe.  [default: dedupe in the work directory]"
)
@click.option(
    "--rotate-size",
    type=Size(1),
    metavar="SIZE",
    help="Finish a file when it has SIZE bytes on disk.  [default: no limit]",
)
@click.option(
    "--rotate-interval",
    type=Duration(1),
    metavar="DURATION",
    help="Finish a file when it is that old.  [default: no limit]",
)
@click.option(
    "--rotate-count", type=Integer(1), metavar="N", help="Finish a file when it has N messages.  [default: no limit]"
)
@click.option(
    "--max-open-files",
    type=Integer(1, 10_000),
    default=None,
    metavar="N",
    help="Most files that may be open; then the file that was written least recently is finished.  [default: 64; 256 "
    "with Kafka, whose partitions each have a file]",
)
@click.option(
    "--sync-interval",
    type=Duration(0.001, 300),
    default=None,
    metavar="DURATION",
    help="Write, fsync and finish the received messages at least this often.  [default: 1s; 10s with --no-spool]",
)
@click.option(
    "--sync-count",
    type=Integer(1),
    metavar="N",
    help="Do this also when N messages were received.  [default: half of --max-in-flight]",
)
@click.option(
    "--sync-bytes",
    type=Size(1),
    default="4MiB",
    show_default=True,
    metavar="SIZE",
    help="Do this also when SIZE bytes were received.",
)
@shared.end_options
@click.option(
    "--max-runtime",
    type=Duration(0.001),
    metavar="DURATION",
    help="End the run in order after DURATION.  [default: no limit]",
)
@click.option(
    "--skip-if-running", is_flag=True, help="If another run uses the work directory, end at once with exit status 0."
)
@shared.filter_options("pass")
@decode_options("which expressions see; what is stored is the body as it was, unless --select makes another")
@shared.consumer_options
@shared.operations_options
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(sources: tuple[str, ...], **given: Any) -> int:
    """Archive topics to files.

    Messages are written to files in a work directory, and finished when they are fsynced. When a file is due
    (by the clock, --rotate-…, SIGHUP or the end of the run) it is moved to the output as a whole, and never
    replaces another file. After a crash, the next run completes the files of the last one. While the disk is
    full, the run pauses; no message is lost.
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
