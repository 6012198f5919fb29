"""q-to-file verify's command line: flags → CheckOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.errors import UsageError


@program(
    "q-to-file verify",
    epilog="""
\b
Examples:
  q-to-file verify /var/archive
  q-to-file verify s3://bucket/events/dt=2026-11-23 --deep
  q-to-file verify s3://bucket/events --s3-endpoint http://10.0.0.7:8333 --json

\b
The faults:
  missing     listed in a manifest, but absent    unlisted    present, but in no manifest
  truncated   shorter than in the manifest        altered     other bytes than in the manifest
  twice       same messages as another file       broken      not in its format (--deep)
  manifest    a malformed manifest                miscounted  other messages than in it (--deep)
  gap         offsets that are in no file         overlap     offsets that are in two files

Exit status: 0 no fault found, 1 faults found, 2 usage, 3 could not start.
""",
)
@click.argument("url", metavar="URL")
@click.option("--deep", is_flag=True, help="Decode and count all messages as well, and find those that occur twice.")
@click.option(
    "--fail-on-duplicates",
    is_flag=True,
    help="With --deep: exit status 1 if a message is in two files. Without this flag that is only reported, as "
    "messages are delivered again after a crash.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each fault, and one for the result.")
@shared.delimiter_option(r"The bytes that end a raw message.  [default: \n]")
@shared.null_option
@click.option(
    "--s3-endpoint", default="", metavar="URL", help="URL of an S3 server other than that of AWS: http://HOST:PORT."
)
@shared.logging_options
def main(url: str, **given: Any) -> int:
    """Check every file of an archive against its manifest.

    URL is s3://BUCKET/PREFIX, gs://, az://, file:// or a directory. Each file is read completely, and
    nothing is changed.
    """  # fmt: skip
    from qtools.cli.run import run_program
    from qtools.to_file.read.verify_run import CheckOptions, check

    show = shared.set_up_logging("q-to-file verify", given)
    if given["fail_on_duplicates"] and not given["deep"]:
        raise UsageError("--fail-on-duplicates needs --deep")
    options = CheckOptions(
        url=url, endpoint=given.pop("s3_endpoint"), delimiter=shared.delimiter_of(given), show=show, **given
    )
    return run_program(lambda signals: check(options, signals))


if __name__ == "__main__":
    main()
