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
What a file can be:
  missing     in a manifest, and not there        unlisted    there, and in no manifest
  truncated   shorter than it was                 altered     other bytes than it had
  twice       the same messages as another        broken      not in its format (--deep)
  manifest    a manifest that is none             miscounted  other messages than it had (--deep)

Exit status: 0 all is well, 1 something is not, 2 usage, 3 could not start.
""",
)
@click.argument("url", metavar="URL")
@click.option("--deep", is_flag=True, help="Decode every message as well, count them, and see which are there twice.")
@click.option(
    "--fail-on-duplicates",
    is_flag=True,
    help="With --deep: status 1 for messages that are in two files, which is else only told: after a crash some come "
    "again.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a finding, and one for the whole.")
@shared.delimiter_option(r"What ends a raw message. Default: \n.")
@shared.null_option
@click.option("--s3-endpoint", default="", metavar="URL", help="An S3 server that is not AWS's: http://HOST:PORT.")
@shared.logging_options
def main(url: str, **given: Any) -> int:
    """Check every file of an archive against its manifest.

    URL is s3://BUCKET/PREFIX, gs://, az://, file:// or a directory. Every file is read whole, and nothing is changed.
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
