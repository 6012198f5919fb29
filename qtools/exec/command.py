"""q-exec's command line: flags → ExecOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.types import Duration, Integer


@program(
    "q-exec",
    takes_command=True,
    habits={"topic": "the topic is an argument: q-exec TOPIC/CHANNEL -- COMMAND"},
    epilog="""
\b
Examples:
  q-exec orders/mail -- ./send-mail
  q-exec images/thumbnails --jobs 4 --timeout 30s -- convert - -resize 200x thumb.png
  q-exec urls/fetch --jobs 8 --tag --until-empty -- curl -sS -O {}
  q-exec events/load --batch 1000 --format envelope -- psql -c 'copy events from stdin'
  q-exec orders/bill --exit 75=requeue:1m --exit 65=dead-letter --max-attempts 5 -- ./bill
  q-exec events/score --keep --jobs 2 -- python3 score.py

Exit status: 0 done, or SIGTERM; 1 failed, 2 usage, 3 could not start; 126 and 127 if the command is not
executable or does not exist.
""",
)
@click.argument("sources", nargs=-1, required=True, metavar="TOPIC/CHANNEL... -- COMMAND [ARGUMENT]...")
@click.option(
    "--jobs",
    "-j",
    type=Integer(1, 10_000),
    default=1,
    show_default=True,
    metavar="N",
    help="Run up to N commands at once; with --keep, N workers.",
)
@click.option(
    "--batch",
    type=Integer(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Start one command for N messages.",
)
@click.option(
    "--batch-wait",
    type=Duration(),
    default=None,
    metavar="DURATION",
    help="With --batch: start the command when the first message has waited this long, with the messages that are "
    "there.  [default: 1s]",
)
@click.option(
    "--keep",
    is_flag=True,
    help="Start the command once. It reads the messages on stdin, and answers each with a line on stdout: ok, requeue "
    "[DURATION], dead [REASON] or stop [REASON].",
)
@shared.format_option(
    "What the command reads on stdin. raw: the body; with --batch or --keep each with the delimiter after it. "
    "envelope: a line of JSON with body, id, timestamp and so on. msgpack: the same in binary. length32: a 4-byte "
    "length and the body."
)
@shared.delimiter_option(r"The bytes after each raw message, with the escapes \n \t \0 \xHH.  [default: \n]")
@shared.null_option
@click.option(
    "--replace",
    "-I",
    default=None,
    metavar="TEXT",
    help="Put the body in place of TEXT in the arguments, and nothing on stdin; '' for never.  [default: {}]",
)
@click.option(
    "--exit",
    "exit",
    multiple=True,
    metavar="STATUS=ACTION",
    help="What becomes of the message when the command ends with STATUS (75, 1-9, signal, timeout; repeatable): "
    "finish, requeue, requeue:DURATION, dead-letter, stop.  [default: 0=finish, 126-127=stop, others requeue]",
)
@shared.filter_options("dead-letter", "dead-letter", "send it to the topic for dead letters")
@click.option(
    "--timeout",
    type=Duration(0.001),
    default=None,
    metavar="DURATION",
    help="End a command, and all that it has started, when it runs longer: SIGTERM, 5 s later SIGKILL; with --keep, "
    "when a worker gives no answer for so long.  [default: never]",
)
@click.option(
    "--backoff",
    type=Duration(),
    default=None,
    metavar="DURATION",
    help="A message whose command has failed comes again after DURATION, and after twice as long with each further "
    "attempt.  [default: 1s]",
)
@click.option(
    "--max-backoff",
    type=Duration(),
    default=None,
    metavar="DURATION",
    help="The longest such delay.  [default: 5m]",
)
@click.option(
    "--max-attempts",
    type=Integer(1, 65_534),
    default=None,
    metavar="N",
    help="A message whose command has failed, and that was delivered N times, goes to the topic for dead letters.  "
    "[default: never; with Kafka 10]",
)
@click.option(
    "--dead-letter-topic",
    default=None,
    metavar="TOPIC",
    help="Send dead letters to TOPIC.  [default: the source's name with .dead]",
)
@shared.create_topics_option
@click.option("--tag", is_flag=True, help="Begin each line of the command's output with the message's id and a tab.")
@click.option(
    "--group",
    is_flag=True,
    help="Pass on the output of each command when it has ended, so that outputs do not mix.",
)
@click.option(
    "--count",
    "-n",
    type=Integer(1),
    metavar="N",
    help="End after N messages of all topics together.  [default: no limit]",
)
@shared.end_options
@shared.consumer_options_with("2 × --jobs × --batch; with --keep 2500, with NATS 5000, with Kafka and Redis 10000")
@shared.operations_options
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(sources: tuple[str, ...], command: tuple[str, ...], **given: Any) -> int:
    """Run a command for each message of channels.

    The command gets the body on stdin, or in place of {} in its arguments, and Q_TOPIC, Q_ID, Q_ATTEMPTS and others in
    its environment. A message is finished when its command has ended with status 0; otherwise it is requeued, and comes
    again after a delay. q-exec ends at once if the command cannot be run.
    """  # fmt: skip
    from qtools.cli.run import run_program
    from qtools.exec.app import execute
    from qtools.exec.flags import options_of

    show = shared.set_up_logging("q-exec", given)
    options = options_of(sources, command, given, show=show)
    return run_program(lambda signals: execute(options, signals))


if __name__ == "__main__":
    main()
