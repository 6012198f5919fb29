"""q-pubsub-http's command line: flags → GatewayOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.types import Duration, Integer, Number, Size
from qtools.errors import UsageError

DEFAULT_ADDRESS = "127.0.0.1:8080"


@program(
    "q-pubsub-http",
    habits={"port": "the address is --http-address HOST:PORT", "": "the address is --http-address HOST:PORT"},
    epilog="""
\b
Examples:
  q-pubsub-http &
  curl --data-binary hello 'http://127.0.0.1:8080/pub?topic=letters'
  curl -N 'http://127.0.0.1:8080/sub?topic=letters&channel=me'
  q-pubsub-http --http-address :8443 --token-file t.toml --https-cert cert.pem --https-key key.pem

The page is at http://127.0.0.1:8080/, what there is to ask at /openapi.json.
Exit status: 0 after SIGTERM; 1 failed, 2 usage, 3 could not start.
""",
)
@click.option(
    "--http-address",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen: HOST:PORT, :PORT for every interface, port 0 for a free one, unix:/PATH.",
)
@click.option("--https-cert", default="", metavar="FILE", help="Serve HTTPS with this certificate (PEM).")
@click.option("--https-key", default="", metavar="FILE", help="The certificate's key (PEM), if it is not with it.")
@click.option(
    "--token-file",
    default="",
    metavar="FILE",
    help="Which token may do what (TOML, see `qtools help pubsub-http`). Without it everybody who can connect may do "
    "everything.",
)
@click.option(
    "--insecure", is_flag=True, help="Listen on more than this machine with neither --token-file nor --https-cert."
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Another name that clients reach this by (repeatable); on loopback only this machine's are answered.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="A web site whose pages may ask, as https://example.org (repeatable); '*' for every one. Default: none.",
)
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="Believe X-Forwarded-Proto, X-Forwarded-Host and Forwarded: a proxy that nobody gets around sets them.",
)
@click.option(
    "--workers",
    type=Integer(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="How many processes serve, to use more cores.",
)
@click.option(
    "--publish-timeout",
    type=Duration(0.1),
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long a request waits for the broker's OK before it is answered 503 or 504.",
)
@click.option(
    "--idempotency-window",
    type=Duration(1.0),
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="How long an Idempotency-Key is remembered.",
)
@click.option(
    "--heartbeat",
    type=Duration(1.0, 3600.0),
    default="15s",
    show_default=True,
    metavar="DURATION",
    help="How often a silent subscriber is asked whether it is there.",
)
@click.option(
    "--max-in-flight",
    type=Integer(1, 100_000),
    default=2500,
    show_default=True,
    metavar="N",
    help="How many messages a subscriber may have unfinished at once.",
)
@click.option(
    "--backlog",
    type=Integer(1),
    default=None,
    metavar="N",
    help="How many messages wait for a slow subscriber without a channel; it misses any more. Default: 10000.",
)
@click.option("--max-msg-size", type=Size(1), default="1MiB", show_default=True, metavar="SIZE", help="Of one message.")
@click.option(
    "--max-body-size",
    type=Size(1),
    default="5MiB",
    show_default=True,
    metavar="SIZE",
    help="Of a body that is taken whole; a longer one is published as it comes.",
)
@click.option(
    "--max-head-size", type=Size(1024), default="64KiB", show_default=True, metavar="SIZE", help="Of a request's head."
)
@click.option(
    "--max-memory",
    type=Size(1 << 20),
    default=None,
    metavar="SIZE",
    help="Held for all clients together: what they have not read, what waits to be published. Beyond it the slowest "
    "are ended. Default: a quarter of the memory that there is.",
)
@click.option(
    "--max-connections",
    type=Integer(1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Clients at once, for each worker.",
)
@click.option(
    "--max-subscriptions",
    type=Integer(0),
    default=None,
    metavar="N",
    help="Streams at once, for each token and worker. Default: as many as there are connections.",
)
@click.option(
    "--rate",
    type=Number(0),
    default=None,
    metavar="N",
    help="Requests a second, for each token and worker. Default: any number.",
)
@click.option(
    "--request-timeout",
    type=Duration(0.1),
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long a request's head may take to come, and its body beyond 10 kB/s.",
)
@click.option(
    "--idle-timeout",
    type=Duration(0.1),
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="How long a connection may be silent between requests, or within a body without end.",
)
@shared.operations_within("5s")
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(**given: Any) -> int:
    """Topics over HTTP: publish with POST, subscribe with a streaming GET, Server-Sent Events or a WebSocket.

    A POST is answered when the broker has the message. A message that was streamed is finished when the client's
    side has taken it, or, with ack=client, when the client says so; what a client leaves unfinished goes back at
    once. At / there is a page to look at topics and their messages.
    """  # fmt: skip
    from qtools.cli.broker import engine_of
    from qtools.cli.run import run_program
    from qtools.pubsub_http.api.startup_checks import check_address, check_origins, raise_file_limit
    from qtools.pubsub_http.options import GatewayOptions

    shared.set_up_logging("q-pubsub-http", given)
    insecure = given.pop("insecure")
    if given["https_key"] and not given["https_cert"]:
        raise UsageError("--https-key needs --https-cert")
    if given["max_body_size"] < given["max_msg_size"]:
        raise UsageError("--max-body-size is less than --max-msg-size")
    hosts = check_address(
        given["http_address"], tokens=bool(given["token_file"]), tls=bool(given["https_cert"]), insecure=insecure,
        names=given.pop("allow_host"), behind_proxy=given["behind_proxy"],
    )  # fmt: skip
    origins = check_origins(given.pop("allow_origin"), tokens=bool(given["token_file"]))
    from qtools.web.memory_budget import default_limit

    engine = engine_of("q-pubsub-http", given)
    options = GatewayOptions(
        engine=engine,
        operations=shared.operations_of(given),
        hosts=hosts,
        origins=origins,
        max_memory=given.pop("max_memory") or default_limit(),
        **given,
    )
    raise_file_limit()
    if options.token_file:
        from qtools.pubsub_http.api.tokens import read_tokens

        read_tokens(options.token_file)  # what is wrong with it is said now, once
    if options.workers > 1:
        from qtools.pubsub_http.workers import serve_with_workers

        return serve_with_workers(options)
    from qtools.pubsub_http.app import serve

    # uvloop does not show how much waits beneath TLS, which says what a client has taken.
    return run_program(lambda signals: serve(options, signals), server=not options.https_cert)


if __name__ == "__main__":
    main()
