"""`q-broker`: the command line. In: flags. Out: options for the daemon, an exit status. The daemon does not know
click."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from qtools import __version__
from qtools.broker.arguments import from_go, read_config
from qtools.broker.subcommands import check, status, stop
from qtools.cli.program import Program
from qtools.cli.types import Duration, DurationOrSize, Integer, Size

_IGNORED = f"{__name__}.ignored"  # a key of a context's meta: warnings about options without a meaning here


class _Group(Program, click.Group):
    """The group: without a subcommand it runs the broker. The subcommands are about the private local broker."""

    refuses_empty_names = False  # for nsqd, an empty flag is one that is left out

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ignored: list[str] = ctx.meta.setdefault(_IGNORED, [])
        return super().parse_args(ctx, from_go(args, self.params, ignored))


def _config(context: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Use the values of the config file as defaults."""
    if path:
        ignored: list[str] = context.meta.setdefault(_IGNORED, [])
        context.default_map = read_config(path, context.command.params, context, ignored)
    return path


def _version(context: click.Context, param: click.Parameter, asked: bool) -> None:
    """Print the version; in nsqd's form, for scripts, if the program is called by nsqd's name."""
    if asked and not context.resilient_parsing:
        if Path(sys.argv[0]).name == "nsqd":
            from qtools.broker.options import NSQD_VERSION

            click.echo(f"nsqd v{NSQD_VERSION} (q-broker {__version__})")
        else:
            click.echo(f"q-broker {__version__}")
        context.exit()


class Percentiles(click.ParamType[tuple[float, ...]]):
    """`0.99` or `1.0,0.99,0.95`: shares above 0 and at most 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            shares = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            shares = (0.0,)
        if not all(0 < share <= 1 for share in shares):
            self.fail(f"{value!r} is no share above 0 and at most 1, such as 0.99", param, ctx)
        return shares


_SECOND = Duration(least=1.0)
_MILLISECOND = Duration(least=0.001)
_BYTES = Size(least=1)


@click.group(
    "q-broker",
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    is_eager=True,
    callback=_config,
    metavar="FILE",
    help="A config file of nsqd's, TOML. Flags take precedence over it.",
)
@click.option(
    "--tcp-address",
    default="127.0.0.1:4150",
    show_default=True,
    metavar="ADDRESS",
    help="Address for NSQ clients: HOST:PORT, :PORT for all interfaces, port 0 for a free port, or unix:/PATH.",
)
@click.option(
    "--http-address",
    default="127.0.0.1:4151",
    show_default=True,
    metavar="ADDRESS",
    help="Address of nsqd's HTTP API; empty: no HTTP.",
)
@click.option(
    "--https-address",
    default="127.0.0.1:4152",
    show_default=True,
    metavar="ADDRESS",
    help="Address of the same API with TLS, if --tls-cert is given; empty: no HTTPS.",
)
@click.option(
    "--lookupd-tcp-address",
    multiple=True,
    metavar="HOST:PORT",
    help="TCP address of an nsqlookupd to register with; its port is usually 4160. Repeatable.",
)
@click.option(
    "--broadcast-address",
    metavar="HOST",
    help="The name of this broker in nsqlookupd and /info.  [default: the host's name]",
)
@click.option(
    "--broadcast-tcp-port",
    type=Integer(0, 65535),
    default=0,
    help="The TCP port of this broker in nsqlookupd and /info.  [default: the port that it listens on]",
)
@click.option(
    "--broadcast-http-port",
    type=Integer(0, 65535),
    default=0,
    help="The HTTP port of this broker in nsqlookupd and /info.  [default: the port that it listens on]",
)
@click.option(
    "--node-id",
    type=Integer(0, 1023),
    metavar="0..1023",
    help="The number of this broker, which becomes part of each message id.  [default: none; ids are unique within a "
    "topic]",
)
@click.option(
    "--msg-timeout",
    type=_MILLISECOND,
    default="60s",
    show_default=True,
    help="Time after which an unfinished message is delivered again, unless its client requests another timeout.",
)
@click.option(
    "--max-msg-timeout",
    type=_MILLISECOND,
    default="15m",
    show_default=True,
    help="The longest message timeout that a client may request, or reach with TOUCH.",
)
@click.option("--max-msg-size", type=_BYTES, default="1MiB", show_default=True, help="The largest message.")
@click.option(
    "--max-body-size",
    type=_BYTES,
    default="5MiB",
    show_default=True,
    help="The largest body of a command, such as MPUB.",
)
@click.option(
    "--max-memory",
    type=_BYTES,
    default=None,
    metavar="SIZE",
    help="Memory for all clients: commands and requests that have not arrived whole, responses that are not read."
    " Beyond it publishers wait, and the slowest clients are disconnected.  [default: a quarter of the machine's "
    "memory]",
)
@click.option(
    "--max-req-timeout",
    type=Duration(),
    default="1h",
    show_default=True,
    help="The longest time to defer a message.",
)
@click.option(
    "--data-path",
    metavar="DIR",
    help="Directory of the messages; one broker at a time.  [default: q-broker in the user's state directory]",
)
@click.option("--memory", is_flag=True, help="Keep messages in memory only: they are lost when the broker ends.")
@click.option(
    "--sync",
    type=click.Choice(["full", "normal", "off"]),
    default="full",
    show_default=True,
    help="What a confirmed message certainly survives: a power failure (full), a crash of the broker (normal), or "
    "neither"
    " (off).",
)
@click.option(
    "--retain",
    type=DurationOrSize(),
    metavar="DURATION|SIZE",
    help="Keep messages after all channels have finished them, for a time or up to a size of each topic: q-tail --since"
    " reads them again.",
)
@click.option(
    "--mem-queue-size",
    type=Integer(0),
    default=10_000,
    show_default=True,
    help="Most messages of a channel in memory; further messages are read from disk when they are needed. An ephemeral"
    " topic or channel stores nothing on disk: its further messages are dropped.",
)
@click.option(
    "--max-rdy-count",
    type=Integer(1),
    default=2500,
    show_default=True,
    help="The most messages in flight of a client.",
)
@click.option(
    "--max-channel-consumers",
    type=Integer(0),
    default=0,
    help="The most clients of a channel.  [default: no limit]",
)
@click.option(
    "--max-heartbeat-interval",
    type=_SECOND,
    default="60s",
    show_default=True,
    help="The longest heartbeat interval that a client may request.",
)
@click.option(
    "--max-output-buffer-size",
    type=Size(least=64),
    default="64KiB",
    show_default=True,
    help="The largest output buffer that a client may request.",
)
@click.option(
    "--output-buffer-timeout",
    type=Duration(),
    default="250ms",
    show_default=True,
    help="Reported to clients as in nsqd. q-broker never delays a message.",
)
@click.option(
    "--min-output-buffer-timeout",
    type=Duration(),
    default="25ms",
    show_default=True,
    help="The shortest output buffer timeout that a client may request.",
)
@click.option(
    "--max-output-buffer-timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="The longest output buffer timeout that a client may request.",
)
@click.option("--snappy/--no-snappy", default=True, show_default=True, help="Offer snappy, if it is installed.")
@click.option("--deflate/--no-deflate", default=True, show_default=True, help="Offer deflate.")
@click.option(
    "--max-deflate-level",
    type=Integer(1, 9),
    default=6,
    show_default=True,
    help="The highest deflate level that a client may request.",
)
@click.option("--tls-cert", metavar="FILE", help="Certificate chain, PEM: offers TLS.")
@click.option("--tls-key", metavar="FILE", help="Key of the certificate, PEM.")
@click.option(
    "--tls-min-version",
    type=click.Choice(["ssl3.0", "tls1.0", "tls1.1", "tls1.2", "tls1.3"]),
    default="tls1.2",
    show_default=True,
    help="The oldest accepted version of TLS. SSL is never accepted.",
)
@click.option("--tls-root-ca-file", metavar="FILE", help="CA that signs the certificates of clients, PEM.")
@click.option(
    "--tls-client-auth-policy",
    type=click.Choice(["require", "require-verify"]),
    help="Clients need a certificate; it is verified in either case. Implies --tls-required.",
)
@click.option(
    "--tls-required",
    type=click.Choice(["false", "true", "tcp-https"]),
    is_flag=False,
    flag_value="true",
    default="false",
    show_default=True,
    help="Require TLS of clients: true for TCP and HTTP, tcp-https for TCP only.",
)
@click.option(
    "--auth-http-address",
    multiple=True,
    metavar="ADDRESS",
    help="Auth server, HOST:PORT or a URL: clients need AUTH. Repeatable.",
)
@click.option(
    "--http-client-connect-timeout",
    type=Duration(least=0.001),
    default="2s",
    show_default=True,
    help="Timeout for the connection to an auth server.",
)
@click.option(
    "--http-client-request-timeout",
    type=Duration(least=0.001),
    default="5s",
    show_default=True,
    help="Timeout for the response of an auth server.",
)
@click.option(
    "--e2e-processing-latency-percentile",
    type=Percentiles(),
    multiple=True,
    metavar="SHARE",
    help="Quantile of the time from publish to finish, shown in /stats: 0.99, or several with commas.",
)
@click.option(
    "--e2e-processing-latency-window-time",
    type=Duration(least=0.001),
    default="10m",
    show_default=True,
    help="The time window of the quantiles.",
)
@click.option(
    "--statsd-address",
    default="",
    metavar="HOST:PORT",
    help="Send statistics to the statsd at this address, by UDP.  [default: not sent]",
)
@click.option(
    "--statsd-prefix",
    default="nsq.%s",
    show_default=True,
    help="Prefix of each metric's name; %s is the broadcast address and the HTTP port.",
)
@click.option(
    "--statsd-interval",
    type=_SECOND,
    default="60s",
    show_default=True,
    help="Interval at which statistics are sent to statsd.",
)
@click.option(
    "--statsd-mem-stats/--no-statsd-mem-stats",
    default=True,
    show_default=True,
    help="Send statistics about memory, too.",
)
@click.option(
    "--statsd-udp-packet-size", type=_BYTES, default="508", show_default=True, help="The largest packet to statsd."
)
@click.option(
    "--statsd-exclude-ephemeral", is_flag=True, help="Do not send statistics about ephemeral topics and channels."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warn", "error", "fatal"], case_sensitive=False),
    default="info",
    show_default=True,
    help="The least severe level that is logged.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the log.",
)
@click.option("--log-prefix", default="q-broker: ", show_default=True, help="Prefix of each line of the log.")
@click.option("--verbose", is_flag=True, hidden=True, help="nsqd has it, and it does nothing there either.")
@click.option("--worker-id", is_flag=True, hidden=True, help="nsqd has it, and it does nothing there either.")
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.pass_context
def main(context: click.Context, /, **flags: object) -> None:
    """Run the embedded broker: nsqd's TCP protocol and HTTP API, without nsqd.

    When q-broker confirms a message, the message is on disk, and survives a crash or a power failure.

    \b
    Example; run the second line in another terminal:
        q-broker
        printf 'a\\nb\\n' | q-pipe letters --nsqd 127.0.0.1:4150

    The other commands, without --nsqd or --broker, use a private local broker, which they start when they need
    it. `q-broker status` and `q-broker stop` are about that broker.
    """
    if context.invoked_subcommand is None:
        from qtools.broker.foreground import run

        context.exit(run(flags, context.meta[_IGNORED]))


for _subcommand in (status, stop, check):
    main.add_command(_subcommand)
