"""The flags that commands share, each declared once, with its rules. In: click's values. Out: a Filter, EndConditions …

A command decorates its function with the groups of flags that it needs, and passes its keyword arguments to
`operations_of`, `filter_of` and so on, each of which removes its own flags and returns one value. broker.py does this
for the flags of the broker. If NSQ's tools have a flag, its long name is the same here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from qtools.cli.types import Delimiter, Duration, Integer, Listen, PeerType, Since
from qtools.errors import ExpressionError, UsageError

if TYPE_CHECKING:
    from qtools.cli.metrics.operations import OperationsOptions
    from qtools.engines.contract import EndConditions, NewTopics
    from qtools.flow.filter import Rules
    from qtools.flow.keying import Keying
    from qtools.flow.steps import OnError, Step

Decorator = Callable[[Any], Any]

STATSD_PORT = 8125
STATSD_SECONDS = 60.0  # nsqd's


def all_of(*decorators: Decorator) -> Decorator:
    """All of `decorators` as one; --help lists their options in this order."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def complete_broker(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Completions of a shell for --broker: the names of the profiles, and the schemes of URLs."""
    from qtools.cli.broker import broker_completions

    return [word for word in broker_completions() if word.startswith(incomplete)]


broker_options = all_of(
    click.option(
        "--broker", "-b", "broker", multiple=True, metavar="URL|PROFILE", shell_complete=complete_broker,
        help="The broker: nsq://HOST:4150, nsq+lookupd://HOST:4161, nsq+unix:/PATH, kafka://HOST:9092, "
        "nats://HOST:4222, redis://HOST:6379 or amqp://HOST:5672, with TLS nsqs://…, kafkas://… and so on, or a "
        "profile of ~/.config/qtools/config.toml.  "
        "[default: $QTOOLS_BROKER, else the local broker]",
    ),
    click.option(
        "--engine-option", "engine_option", multiple=True, metavar="KEY=VALUE",
        help="A setting of the connection (repeatable), as in a URL's query: msg_timeout=30s for NSQ, linger.ms=5 for "
        "Kafka.",
    ),
    click.option(
        "--nsqd-tcp-address", "--nsqd", "nsqd", multiple=True, metavar="HOST:PORT",
        help="TCP address of an nsqd (repeatable), or unix:/PATH.  [default: $QTOOLS_NSQD, else the local broker]",
    ),
    click.option(
        "--lookupd-http-address", "--lookupd", "lookupd", multiple=True, metavar="HOST:PORT",
        help="HTTP address of an nsqlookupd (repeatable), which names the nsqds.  [default: $QTOOLS_LOOKUPD]",
    ),
    click.option(
        "--nsqd-http-address", "nsqd_http", multiple=True, metavar="HOST:PORT",
        help="HTTP address of each nsqd, in the order of --nsqd.  [default: the TCP port plus one]",
    ),
)  # fmt: skip

connection_options = all_of(
    click.option(
        "--tls", is_flag=True,
        help="Encrypt the connection and verify the broker's certificate; fail if the broker does not offer TLS.",
    ),
    click.option(
        "--tls-ca", default="", metavar="FILE",
        help="Trust the CA certificates in FILE (PEM).  [default: the system's]",
    ),
    click.option(
        "--tls-cert", default="", metavar="FILE",
        help="Client certificate (PEM). Its key is in the same file, or in that of --tls-key.",
    ),
    click.option("--tls-key", default="", metavar="FILE", help="Key of the client certificate (PEM)."),
    click.option(
        "--tls-insecure-skip-verify", "tls_insecure", is_flag=True,
        help="Do not verify the broker's certificate.",
    ),
    click.option(
        "--auth-secret-file", default="", metavar="FILE",
        help="File with NSQ's AUTH secret or Kafka's password. No flag takes the secret itself, as other users "
        "can see command lines.  "
        "[default: $QTOOLS_AUTH_SECRET]",
    ),
    click.option(
        "--snappy", is_flag=True,
        help="Compress the connection with snappy; needs the extra snappy.",
    ),
    click.option("--deflate", is_flag=True, help="Compress the connection with deflate."),
    click.option(
        "--deflate-level", type=Integer(1, 9), default=None, metavar="1..9",
        help="Compression level of --deflate.  [default: 6]",
    ),
    click.option(
        "--client-id", default="", metavar="TEXT",
        help="Name of this client in nsqd's statistics.  [default: the host name]",
    ),
)  # fmt: skip

create_topics_option = click.option(
    "--create-topics", default=None, metavar="default|partitions=N,replicas=M",
    help="Create topics that do not exist, as the cluster's own settings say, or with N partitions and M replicas. "
    "NSQ creates every topic by itself.",
)  # fmt: skip

publisher_options = all_of(
    click.option(
        "--key", default=None, metavar="EXPR",
        help="Give each message the result of EXPR (a subset of jq) as its key, if the engine has keys: '.userId'. "
        "Messages with the same key stay in order.",
    ),
    click.option(
        "--header", "headers", multiple=True, metavar="NAME=EXPR",
        help="Give each message a header NAME with the result of EXPR (repeatable), if the engine has headers.",
    ),
    click.option(
        "--dedupe-id", default=None, metavar="EXPR",
        help="Give each message the result of EXPR as its id: the broker leaves out a message whose id it had lately, "
        "if the engine can (NATS: within the stream's duplicate_window).",
    ),
    create_topics_option,
)  # fmt: skip


def consumer_options_with(max_in_flight: str) -> Decorator:
    """The options of a consumer. max_in_flight: what --help gives as the default of --max-in-flight."""
    return all_of(
        click.option(
            "--since", type=Since(), default=None, metavar="DURATION|TIME|all",
            help="Where a new channel begins: with the messages that were published DURATION ago, or at TIME, or with "
            "the oldest. nsqd and RabbitMQ cannot do this; q-broker needs --retain for messages that all channels have "
            "finished.",
        ),
        click.option(
            "--max-in-flight", type=Integer(1), default=None, metavar="N",
            help="Most messages that may be in flight (received and not finished), over all brokers.  "
            f"[default: {max_in_flight}]",
        ),
        click.option(
            "--msg-timeout", type=Duration(1.0, 900.0), default=None, metavar="DURATION",
            help="Time after which the broker delivers an unfinished message again; it is extended while the message "
            "is in work.  [default: the broker's]",
        ),
    )  # fmt: skip


consumer_options = consumer_options_with("2500; with NATS 5000; with Kafka and Redis 10000")

end_options = all_of(
    click.option(
        "--until-empty", is_flag=True,
        help="End when nothing is left in the channels: waiting, in flight or deferred.",
    ),
    click.option(
        "--until-now", is_flag=True,
        help="End when as many messages were read as the channels contained at the start, or the channels are empty; "
        "this ends even if new messages keep arriving.",
    ),
    click.option(
        "--idle-timeout", type=Duration(0.001), default=None, metavar="DURATION",
        help="End when no message has arrived for DURATION (such as 10s).  [default: never]",
    ),
    click.option(
        "--fail-if-paused", is_flag=True,
        help="With --until-empty or --until-now: end with exit status 1 if a channel or its topic is paused.",
    ),
    click.option(
        "--fail-if-none", is_flag=True,
        help="End with exit status 1 if the run ends by itself and has processed no message.",
    ),
)  # fmt: skip

logging_options = all_of(
    click.option("--quiet", "-q", is_flag=True, help="Log only errors; no summary and no progress line."),
    click.option("--verbose", "-v", count=True, help="Log more; give it twice to log every detail."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Format of the log lines on stderr.",
    ),
)


def operations_within(drain_timeout: str) -> Decorator:
    """The flags of a long-running command. drain_timeout: the default of --drain-timeout, such as "10s"."""
    return all_of(
        click.option(
            "--metrics-address", type=Listen(), default=None, metavar="HOST:PORT",
            help="Serve /metrics (for Prometheus), /healthz and /readyz at this address: HOST:PORT, :PORT for "
            "127.0.0.1, port 0 for a free port, or unix:/PATH.  [default: not served]",
        ),
        click.option(
            "--statsd-address", type=PeerType(STATSD_PORT), default=None, metavar="HOST:PORT",
            help="Send metrics to the statsd at this address, by UDP.  [default: not sent]",
        ),
        click.option(
            "--statsd-prefix", default="", metavar="TEXT",
            help="Prefix of each metric's name for statsd; %s in it is the host name.  [default: none]",
        ),
        click.option(
            "--statsd-interval", type=Duration(0.1), default=None, metavar="DURATION",
            help="Interval at which metrics are sent to statsd.  [default: 60s]",
        ),
        click.option(
            "--drain-timeout", type=Duration(), default=drain_timeout, show_default=True, metavar="DURATION",
            help="After a signal, wait at most DURATION for the writes in progress.",
        ),
    )  # fmt: skip


operations_options = operations_within("10s")


def filter_options(on_error: str, more: str = "", explained: str = "") -> Decorator:
    """--where, --select and --on-error; `on_error` is the default of --on-error. more: a choice that only this command
    has, which is `explained`."""
    choices = ["fail", "skip", "pass", *([more] if more else [])]
    last = f"pass it on unchanged, or {explained}" if more else "or pass it on unchanged"
    return all_of(
        click.option(
            "--where", default=None, metavar="EXPR",
            help="Take only messages for which EXPR (a subset of jq) is true: "
            "'.type == \"purchase\" and .amount > 100'.",
        ),
        click.option(
            "--select", default=None, metavar="EXPR",
            help="Replace each body by the result of EXPR, as compact JSON: '{id: .messageId, amount}'.",
        ),
        click.option(
            "--on-error", type=click.Choice(choices), default=None, metavar="|".join(choices),
            help="What to do with a message that is not JSON, or for which --where or --select fails: end the run, "
            f"leave the message out and log it, {last}.  [default: {on_error}]",
        ),
    )  # fmt: skip


FORMATS = ("raw", "envelope", "msgpack", "length32")


def format_option(text: str, *more: str) -> Decorator:
    """--format. more: the formats that only this command has."""
    return click.option(
        "--format", "-f", "format", type=click.Choice([*FORMATS, *more]), default="raw", show_default=True, help=text
    )


def delimiter_option(text: str) -> Decorator:
    return click.option("--delimiter", "-d", type=Delimiter(), default=None, metavar="TEXT", help=text)


null_option = click.option("--null", "-0", "null", is_flag=True, help="Use NUL as the delimiter, as find -print0 does.")


def ends_of(given: dict[str, Any]) -> EndConditions:
    """Remove the flags of `end_options`, except --fail-if-none, from `given`. UsageError if they contradict each
    other."""
    from qtools.engines.contract import EndConditions

    names = ("until_empty", "until_now", "idle_timeout", "fail_if_paused")
    ends = EndConditions(**{name: given.pop(name) for name in names})
    if ends.until_empty and ends.until_now:
        raise UsageError("give --until-empty or --until-now, not both")
    if ends.fail_if_paused and not ends.flag:
        raise UsageError("--fail-if-paused goes with --until-empty or --until-now")
    return ends


def operations_of(given: dict[str, Any]) -> OperationsOptions:
    """Remove the flags of `operations_options` from `given`. UsageError if they contradict each other."""
    from qtools.cli.metrics.operations import OperationsOptions

    statsd, prefix, interval = (given.pop(f"statsd_{name}") for name in ("address", "prefix", "interval"))
    if statsd is None and (prefix or interval is not None):
        raise UsageError("--statsd-prefix and --statsd-interval need --statsd-address")
    if not re.fullmatch(r"(?:[A-Za-z0-9_.-]|%s)*", prefix):
        raise UsageError(f"--statsd-prefix {prefix!r} may contain only letters, digits, . _ - and %s (the host name)")
    return OperationsOptions(
        metrics_address=given.pop("metrics_address"),
        statsd_address=statsd,
        statsd_prefix=prefix,
        statsd_interval=interval or STATSD_SECONDS,
        drain_timeout=given.pop("drain_timeout"),
    )


def filter_of(given: dict[str, Any], on_error: OnError, then: Sequence[Step] = ()) -> Rules | None:
    """Remove the flags of `filter_options` from `given`, and compile them; None if there is neither --where nor
    --select, and no steps `then` follow. UsageError if an expression does not compile."""
    where, select, chosen = given.pop("where"), given.pop("select"), given.pop("on_error")
    if where is None and select is None and not then:
        if chosen is not None:
            raise UsageError("--on-error goes with --where or --select only")
        return None
    from qtools.expressions.expression import Expression, compile_expression
    from qtools.flow.filter import Filter, Rules

    compiled: dict[str, Expression | None] = {"where": None, "select": None}
    for name, text in (("where", where), ("select", select)):
        try:
            compiled[name] = None if text is None else compile_expression(text)
        except ExpressionError as error:
            raise UsageError(f"--{name}: {error}") from error
    rules = Filter(compiled["where"], compiled["select"])
    return Rules(rules, chosen or on_error, chosen=chosen is not None, then=then)


def keying_of(given: dict[str, Any], encode_key: Callable[[Any], bytes] | None = None) -> Keying | None:
    """Remove --key, --header and --dedupe-id from `given`, and compile them; None if none is there. UsageError if an
    expression does not compile. encode_key: as for Keying."""
    key, headers, dedupe_id = given.pop("key"), given.pop("headers"), given.pop("dedupe_id")
    if key is None and not headers and dedupe_id is None:
        return None
    from qtools.expressions.expression import compile_expression
    from qtools.flow.keying import Keying

    try:
        flag = "--key"
        compiled = None if key is None else compile_expression(key)
        pairs = []
        for word in headers:
            name, separator, text = word.partition("=")
            flag = f"--header {name}"
            if not separator or not name:
                raise UsageError(f"--header {word!r} is not NAME=EXPR")
            if not name.isprintable():  # a byte that is not UTF-8 is a character that cannot be printed
                raise UsageError(f"--header {word!r}: the name has a control character, or is not UTF-8")
            pairs.append((name, compile_expression(text)))
        flag = "--dedupe-id"
        ident = None if dedupe_id is None else compile_expression(dedupe_id)
    except ExpressionError as error:
        raise UsageError(f"{flag}: {error}") from error
    return Keying(compiled, tuple(pairs), encode_key, ident)


def new_topics_of(given: dict[str, Any]) -> NewTopics | None:
    """Remove --create-topics from `given`; UsageError if it is neither "default" nor partitions=N,replicas=M."""
    text: str | None = given.pop("create_topics")
    if text is None:
        return None
    from qtools.engines.contract import NewTopics

    if text == "default":
        return NewTopics()
    found = re.fullmatch(
        r"(?:(partitions|replicas)=([1-9][0-9]{0,4}))(?:,(partitions|replicas)=([1-9][0-9]{0,4}))?", text
    )
    if found is None or found[1] == found[3]:
        raise UsageError(f"--create-topics {text!r} is neither default nor partitions=N,replicas=M")
    numbers = {found[1]: int(found[2])} | ({found[3]: int(found[4])} if found[3] else {})
    return NewTopics(**numbers)


def set_up_logging(program: str, given: dict[str, Any]) -> bool:
    """Remove the flags of `logging_options` from `given`, and set up logging. Returns whether to show a progress line
    and a summary."""
    from qtools.cli import logs

    quiet: bool = given.pop("quiet")
    as_json = given.pop("log_format") == "json"
    logs.set_up(program, quiet=quiet, verbose=given.pop("verbose"), as_json=as_json)
    return not quiet


def delimiter_of(given: dict[str, Any], *, may_be_empty: bool = False) -> bytes:
    """Remove --delimiter and -0 from `given`, and return the delimiter. An empty one means no delimiter; it is a
    UsageError unless `may_be_empty`."""
    delimiter, null = given.pop("delimiter"), given.pop("null")
    if null and delimiter is not None:
        raise UsageError("give --delimiter or -0, not both")
    if delimiter == b"" and not may_be_empty:
        raise UsageError("a delimiter cannot be empty here")
    return b"\0" if null else b"\n" if delimiter is None else delimiter
