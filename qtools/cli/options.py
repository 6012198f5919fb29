"""Every flag that commands share, once, with its rules. In: click's values. Out: a Filter, EndConditions …

A command puts the decorators it needs above its function and hands its keyword arguments to `operations_of`,
`filter_of` and others, which take out what is theirs; the broker's flags are taken out by broker.py. Long names are
NSQ's where NSQ has the flag.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from qtools.cli.types import Delimiter, Duration, Integer, Listen, PeerType
from qtools.errors import ExpressionError, UsageError

if TYPE_CHECKING:
    from qtools.cli.metrics.operations import OperationsOptions
    from qtools.engines.contract import EndConditions
    from qtools.flow.filter import Filter, OnError

Decorator = Callable[[Any], Any]

STATSD_PORT = 8125
STATSD_SECONDS = 60.0  # nsqd's


def _all(*decorators: Decorator) -> Decorator:
    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def complete_broker(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What a shell offers for --broker: the profiles, and the beginnings of URLs."""
    from qtools.cli.broker import beginnings

    return [word for word in beginnings() if word.startswith(incomplete)]


broker_options = _all(
    click.option(
        "--broker", "-b", "broker", multiple=True, metavar="URL|PROFILE", shell_complete=complete_broker,
        help="The broker: nsq://HOST:4150, nsq+lookupd://HOST:4161, nsqs://… with TLS, nsq+unix:/PATH, or a profile of "
        "~/.config/qtools/config.toml. Default: $QTOOLS_BROKER, else the local broker.",
    ),
    click.option(
        "--engine-option", "engine_option", multiple=True, metavar="KEY=VALUE",
        help="A setting of the connection by its key (repeatable), as in a URL's query: msg_timeout=30s.",
    ),
    click.option(
        "--nsqd-tcp-address", "--nsqd", "nsqd", multiple=True, metavar="HOST:PORT",
        help="An nsqd (repeatable); unix:/PATH for a socket. Default: $QTOOLS_NSQD, else the local broker.",
    ),
    click.option(
        "--lookupd-http-address", "--lookupd", "lookupd", multiple=True, metavar="HOST:PORT",
        help="An nsqlookupd to ask for nsqds (repeatable). Default: $QTOOLS_LOOKUPD.",
    ),
    click.option(
        "--nsqd-http-address", "nsqd_http", multiple=True, metavar="HOST:PORT",
        help="Where each nsqd's HTTP API is, in the order of --nsqd. Default: its TCP port plus one.",
    ),
)  # fmt: skip

connection_options = _all(
    click.option("--tls", is_flag=True, help="Encrypt; the certificate is verified. Refuses to go on without."),
    click.option("--tls-ca", default="", metavar="FILE", help="CA certificates to trust instead of the system's."),
    click.option("--tls-cert", default="", metavar="FILE", help="Client certificate (PEM), with its key or --tls-key."),
    click.option("--tls-key", default="", metavar="FILE", help="The client certificate's key (PEM)."),
    click.option("--tls-insecure-skip-verify", "tls_insecure", is_flag=True, help="Accept any certificate."),
    click.option(
        "--auth-secret-file", default="", metavar="FILE",
        help="File with the AUTH secret. Default: $QTOOLS_AUTH_SECRET. Never an argument: those can be seen by all.",
    ),
    click.option("--snappy", is_flag=True, help="Compress the connection with snappy (qtools-cli[snappy])."),
    click.option("--deflate", is_flag=True, help="Compress the connection with deflate."),
    click.option("--deflate-level", type=Integer(1, 9), default=None, metavar="1..9", help="Default: 6."),
    click.option("--client-id", default="", metavar="TEXT", help="Shown in nsqd's statistics. Default: the host."),
)  # fmt: skip

consumer_options = _all(
    click.option(
        "--max-in-flight", type=Integer(1), default=2500, show_default=True, metavar="N",
        help="How many messages may be unfinished here at once, over all nsqds.",
    ),
    click.option(
        "--msg-timeout", type=Duration(1.0, 900.0), default=None, metavar="DURATION",
        help="Time until the broker delivers an unfinished message again; it is extended while held. "
        "Default: the broker's.",
    ),
)  # fmt: skip

end_options = _all(
    click.option("--until-empty", is_flag=True, help="End when nothing is left: depth, in flight, deferred all 0."),
    click.option(
        "--until-now", is_flag=True,
        help="End when as many messages are taken as each channel held on each nsqd at the start, or nothing is left: "
        "the run ends even if messages keep coming.",
    ),
    click.option(
        "--idle-timeout", type=Duration(0.001), default=None, metavar="DURATION",
        help="End when no message has come for so long.",
    ),
    click.option(
        "--fail-if-paused", is_flag=True,
        help="With --until-empty or --until-now: end with status 1 if a channel, or its topic, is paused.",
    ),
    click.option(
        "--fail-if-none", is_flag=True, help="Exit with status 1 if the run ends by itself without a single message."
    ),
)  # fmt: skip

talk_options = _all(
    click.option("--quiet", "-q", is_flag=True, help="Only errors on stderr; no summary, no progress."),
    click.option("--verbose", "-v", count=True, help="More on stderr; twice for every detail."),
    click.option(
        "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How stderr talks."
    ),
)


def operations_within(drain_timeout: str) -> Decorator:
    """The flags of a long-running command; `drain_timeout` is the default of --drain-timeout."""
    return _all(
        click.option(
            "--metrics-address", type=Listen(), default=None, metavar="HOST:PORT",
            help="Serve /metrics for Prometheus, and /healthz and /readyz, there; unix:/PATH for a socket, port 0 for "
            "a free one, 127.0.0.1 when no host is given. Default: nowhere.",
        ),
        click.option(
            "--statsd-address", type=PeerType(STATSD_PORT), default=None, metavar="HOST:PORT",
            help="Send metrics to the statsd there, over UDP. Default: none.",
        ),
        click.option(
            "--statsd-prefix", default="", metavar="TEXT", help="Prefix of each name sent to statsd; %s is the host."
        ),
        click.option(
            "--statsd-interval", type=Duration(0.1), default=None, metavar="DURATION",
            help="How often metrics are sent to statsd. Default: 60s.",
        ),
        click.option(
            "--drain-timeout", type=Duration(), default=drain_timeout, show_default=True, metavar="DURATION",
            help="After a signal, wait so long for the writes in progress; the rest goes back.",
        ),
    )  # fmt: skip


operations_options = operations_within("10s")


def filter_options(on_error: str) -> Decorator:
    """--where, --select and --on-error; `on_error` is the default of --on-error."""
    return _all(
        click.option(
            "--where", default=None, metavar="EXPR",
            help="Only messages for which this is true; a subset of jq: '.type == \"purchase\" and .amount > 100'.",
        ),
        click.option(
            "--select", default=None, metavar="EXPR",
            help="Replace each body by this, as compact JSON: '{id: .messageId, amount}'.",
        ),
        click.option(
            "--on-error", type=click.Choice(["fail", "skip", "pass"]), default=None, metavar="fail|skip|pass",
            help="A message that is not JSON, or for which --where or --select fails: end there, leave it out and "
            f"name it, or let it through as it is. Default: {on_error}.",
        ),
    )  # fmt: skip


FORMATS = ("raw", "envelope", "msgpack", "length32")


def format_option(text: str) -> Decorator:
    return click.option(
        "--format", "-f", "format", type=click.Choice(FORMATS), default="raw", show_default=True, help=text
    )


def delimiter_option(text: str) -> Decorator:
    return click.option("--delimiter", "-d", type=Delimiter(), default=None, metavar="TEXT", help=text)


null_option = click.option("--null", "-0", "null", is_flag=True, help="The delimiter is NUL, as in find -print0.")


def ends_of(given: dict[str, Any]) -> EndConditions:
    """Take the flags of `end_options`, except --fail-if-none, out of `given`; UsageError if they contradict."""
    from qtools.engines.contract import EndConditions

    names = ("until_empty", "until_now", "idle_timeout", "fail_if_paused")
    ends = EndConditions(**{name: given.pop(name) for name in names})
    if ends.until_empty and ends.until_now:
        raise UsageError("give --until-empty or --until-now, not both")
    if ends.fail_if_paused and not ends.flag:
        raise UsageError("--fail-if-paused goes with --until-empty or --until-now")
    return ends


def operations_of(given: dict[str, Any]) -> OperationsOptions:
    """Take the flags of `operations_options` out of `given`."""
    from qtools.cli.metrics.operations import OperationsOptions

    statsd, prefix, interval = (given.pop(f"statsd_{name}") for name in ("address", "prefix", "interval"))
    if statsd is None and (prefix or interval is not None):
        raise UsageError("--statsd-prefix and --statsd-interval need --statsd-address")
    if not re.fullmatch(r"(?:[A-Za-z0-9_.-]|%s)*", prefix):
        raise UsageError(f"--statsd-prefix {prefix!r} has more than letters, digits, . _ - and %s, the host")
    return OperationsOptions(
        metrics_address=given.pop("metrics_address"),
        statsd_address=statsd,
        statsd_prefix=prefix,
        statsd_interval=interval or STATSD_SECONDS,
        drain_timeout=given.pop("drain_timeout"),
    )


def filter_of(given: dict[str, Any], on_error: OnError) -> Filter | None:
    """Take the filter flags out of `given`, and compile them; None where there is nothing to filter."""
    where, select, chosen = given.pop("where"), given.pop("select"), given.pop("on_error")
    if where is None and select is None:
        if chosen is not None:
            raise UsageError("--on-error goes with --where or --select only")
        return None
    from qtools.expressions.expression import Expression, compile_expression
    from qtools.flow.filter import Filter

    compiled: dict[str, Expression | None] = {"where": None, "select": None}
    for name, text in (("where", where), ("select", select)):
        try:
            compiled[name] = None if text is None else compile_expression(text)
        except ExpressionError as error:
            raise UsageError(f"--{name}: {error}") from error
    return Filter(compiled["where"], compiled["select"], chosen or on_error, chosen=chosen is not None)


def set_up_talk(program: str, given: dict[str, Any]) -> bool:
    """Take the talk flags out of `given`; whether to show progress and summary."""
    from qtools.cli import logs

    quiet: bool = given.pop("quiet")
    as_json = given.pop("log_format") == "json"
    logs.set_up(program, quiet=quiet, verbose=given.pop("verbose"), as_json=as_json)
    return not quiet


def delimiter_of(given: dict[str, Any], *, may_be_empty: bool = False) -> bytes:
    """Take --delimiter and -0 out of `given`. UsageError for an empty one, which means no delimiter, unless it
    `may_be_empty`."""
    delimiter, null = given.pop("delimiter"), given.pop("null")
    if null and delimiter is not None:
        raise UsageError("give --delimiter or -0, not both")
    if delimiter == b"" and not may_be_empty:
        raise UsageError("a delimiter cannot be empty here")
    return b"\0" if null else b"\n" if delimiter is None else delimiter
