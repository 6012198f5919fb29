"""q-bridge's command line: flags → BridgeOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.schemas.options import decode_options
from qtools.cli.types import Duration, Integer, Number, TopicType
from qtools.errors import UsageError


@program(
    "q-bridge",
    epilog="""
\b
Examples:
  q-bridge events --to events.copy --to-broker nsq://10.0.0.7:4150
  q-bridge nsq://10.0.0.5/events/router --to nsq://10.0.0.7/events
  q-bridge events/errors --to alerts --where '.level == "error" and .status >= 500'
  q-bridge events --to 'events.\\(.type)' --select '{id: .messageId, type}'
  q-bridge events --to events.json --decode avro --schema-registry http://registry:8081 --select .
  q-bridge events --routes routes.toml --dry-run
  q-bridge --check routes.toml
  q-bridge --redrive events.dead

Exit status: 0 done, or SIGTERM; 1 failed, 2 usage, 3 could not start.
""",
)
@click.argument("sources", nargs=-1, metavar="TOPIC[/CHANNEL]...")
@click.option(
    "--to",
    multiple=True,
    metavar="TOPIC",
    help=r"Send each message to TOPIC (repeatable). In 'events.\(.type)' a part comes from the message.",
)
@click.option(
    "--routes",
    metavar="FILE",
    help="Send each message as the routes file FILE says; SIGHUP reads the file again.",
)
@click.option(
    "--where", default=None, metavar="EXPR", help="Send only messages for which EXPR is true; the others are finished."
)
@click.option(
    "--select", default=None, metavar="EXPR", help="Replace each body by the result of EXPR, as compact JSON."
)
@decode_options("which expressions see; what is sent is the body as it was, unless --select makes another")
@click.option(
    "--to-broker",
    multiple=True,
    metavar="URL|PROFILE",
    shell_complete=shared.complete_broker,
    help="The broker to send to, as for --broker.  [default: that of the sources]",
)
@click.option(
    "--to-nsqd",
    multiple=True,
    metavar="HOST:PORT",
    help="TCP address of an nsqd to send to (repeatable).  [default: the broker of the sources]",
)
@click.option(
    "--to-lookupd",
    multiple=True,
    metavar="HOST:PORT",
    help="HTTP address of an nsqlookupd that names the nsqds to send to (repeatable).",
)
@click.option(
    "--to-engine-option",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the connection to the broker to send to (repeatable). --engine-option is for both connections, "
    "or for the one whose engine has the setting.",
)
@click.option(
    "--balance",
    type=click.Choice(["fastest", "round-robin"]),
    default="fastest",
    show_default=True,
    help="Which of several nsqds gets the next batch. An nsqd that is down is skipped, and tried again later.",
)
@click.option(
    "--on-error",
    type=click.Choice(["dead-letter", "drop", "fail", "pass"]),
    default=None,
    help="What to do with a message that cannot be routed: publish it to the topic SOURCE.dead with the reason, leave "
    "it out, end with exit status 1, or send it unchanged (to --to, or the default of the routes). Without this flag: "
    "dead-letter, but if none of the first 1000 messages can be routed, the expressions are probably wrong and the run "
    "ends.",
)
@click.option(
    "--dead-letter-topic",
    type=TopicType(),
    default=None,
    metavar="TOPIC",
    help="The topic for dead letters.  [default: SOURCE.dead]",
)
@click.option(
    "--max-attempts",
    type=Integer(1, 65534),
    default=None,
    metavar="N",
    help="Treat a message that was delivered more than N times as --on-error says.  [default: no limit; "
    "10 on Kafka, where an unfinished message holds up those after it]",
)
@click.option(
    "--max-topics",
    type=Integer(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Most different topics that templates such as 'events.\\(.type)' may name.",
)
@click.option(
    "--dedupe",
    default=None,
    metavar="EXPR",
    help="Do not send a message if EXPR has the same value as for a message that was sent; null never counts as the "
    "same. Such a message is finished, and counted.",
)
@click.option(
    "--dedupe-window",
    type=Duration(0.001),
    default=None,
    metavar="DURATION",
    help="How long values of --dedupe are remembered, across restarts too.  [default: 1h]",
)
@click.option(
    "--dedupe-keys",
    type=Integer(1),
    default=None,
    metavar="N",
    help="Most values of --dedupe that are remembered; then the oldest are removed.  [default: 10 million]",
)
@click.option(
    "--dedupe-file",
    metavar="FILE",
    help="The file with the values of --dedupe.  [default: a file for these sources in the state directory]",
)
@click.option(
    "--redrive",
    is_flag=True,
    help="Send the dead letters in the sources back to the topics that they came from, and end.",
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
    "--count",
    "-n",
    type=Integer(1),
    metavar="N",
    help="End after N messages of all topics together.  [default: no limit]",
)
@shared.end_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print where each message would be sent. This reads a copy of the messages, and sends and finishes none. "
    "[begins with what is published from now on; on Kafka with the oldest message]",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Print each route with the value of each part of its condition, for a line of stdin or a message.",
)
@click.option(
    "--format",
    "-f",
    type=click.Choice(["raw", "envelope"]),
    default=None,
    help="What --explain reads from stdin: a body on each line, or an envelope, from which variables such as $key have "
    "values.  [default: raw]",
)
@click.option(
    "--check",
    default="",
    metavar="FILE",
    help="Run the tests in the routes file FILE. Exit status: 0, or 1 if a test fails, with the reasons.",
)
@shared.publisher_options
@shared.consumer_options
@shared.operations_options
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(sources: tuple[str, ...], **given: Any) -> int:
    """Send the messages of topics on to other topics: all or filtered, routed, transformed, across clusters.

    A message is finished when all destinations have confirmed it. Without /CHANNEL the channel is
    q-bridge. Several bridges with the same topic and channel share its messages; give each its own
    channel, and each of them gets all messages.
    """  # fmt: skip
    import sys

    from qtools.bridge.flags import options_of
    from qtools.cli.run import run_program

    show = shared.set_up_logging("q-bridge", given)
    check = given.pop("check")
    if check:
        if sources:
            raise UsageError(f"--check reads a routes file and nothing else: {sources[0]!r} is too much")
        return _check(check)
    options = options_of(sources, given, show=show)
    if (options.explain or options.dry_run) and sys.stdout is None:
        raise UsageError("stdout is closed: there is nowhere to print to")
    if options.explain and not sources:
        if sys.stdin is None:
            raise UsageError("stdin is closed: pipe messages in, or name a topic")
        from qtools.bridge.dry_run import explain_stdin

        return explain_stdin(options)
    if options.explain or options.dry_run:
        from qtools.bridge.dry_run import look

        return run_program(lambda signals: look(options, signals))
    from qtools.bridge.app import bridge

    return run_program(lambda signals: bridge(options, signals))


def _check(path: str) -> int:
    """Run the tests in the routes file at `path`."""
    import logging

    from qtools.cli import logs
    from qtools.cli.types import plural
    from qtools.names import LONGEST_NAME
    from qtools.routing.routes_file import read_routes

    try:
        file = read_routes(path, LONGEST_NAME)
        failures = file.failures()
    except UsageError as error:
        failures = [str(error)]
    for failure in failures:
        logs.log(logging.ERROR, failure)
    if not failures:
        tests = plural(len(file.tests), "test")
        click.echo(f"{path}: {plural(len(file.routes), 'route')}, {tests}, all right")
    return 1 if failures else 0


if __name__ == "__main__":
    main()
