"""q-pubsub-http's command line: flags → GatewayOptions → run."""

from __future__ import annotations

from typing import Any

import click

from qtools.cli import options as shared
from qtools.cli.program import program
from qtools.cli.schemas.options import decode_options
from qtools.cli.types import Duration, Integer, Number, Size

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

The page is at http://127.0.0.1:8080/, and the description of the API at /openapi.json.
Exit status: 0 after SIGTERM; 1 failed, 2 usage, 3 could not start.
""",
)
@click.option(
    "--http-address",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on: HOST:PORT, :PORT for all interfaces, port 0 for a free port, or unix:/PATH.",
)
@click.option("--https-cert", metavar="FILE", help="Serve HTTPS with this certificate (PEM).")
@click.option("--https-key", metavar="FILE", help="Key of the certificate (PEM), if it is not in the same file.")
@click.option(
    "--token-file",
    default="",
    metavar="FILE",
    help="Tokens and their permissions (TOML, see `qtools help pubsub-http`).  [default: none; every client may do "
    "everything]",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow an address that other machines can reach without --token-file and --https-cert.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Accept requests to the host NAME, too (repeatable). On a loopback address, only names of this machine are "
    "accepted without this flag.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Allow requests of pages from the web site ORIGIN, such as https://example.org (repeatable); '*' for all.  "
    "[default: none]",
)
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="Trust the headers X-Forwarded-Proto, X-Forwarded-Host and Forwarded. Use it only if all requests pass a "
    "proxy "
    "that sets them.",
)
@click.option(
    "--workers",
    type=Integer(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of processes, to use several cores.",
)
@click.option(
    "--publish-timeout",
    type=Duration(0.1),
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="Time that a POST waits for the confirmation of the broker; then the response is 503 or 504.",
)
@click.option(
    "--idempotency-window",
    type=Duration(1.0),
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="Time for which an Idempotency-Key is remembered.",
)
@click.option(
    "--heartbeat",
    type=Duration(1.0, 3600.0),
    default="15s",
    show_default=True,
    metavar="DURATION",
    help="Interval at which an idle subscriber is sent a heartbeat.",
)
@click.option(
    "--max-in-flight",
    type=Integer(1, 100_000),
    default=2500,
    show_default=True,
    metavar="N",
    help="Most messages of one subscriber that may be in flight.",
)
@click.option(
    "--backlog",
    type=Integer(1),
    default=None,
    metavar="N",
    help="Most messages that wait for a slow subscriber without a channel; further messages are not sent to it.  "
    "[default: 10000]",
)
@click.option(
    "--max-msg-size", type=Size(1), default="1MiB", show_default=True, metavar="SIZE", help="Largest message."
)
@click.option(
    "--max-body-size",
    type=Size(1),
    default="5MiB",
    show_default=True,
    metavar="SIZE",
    help="Largest request body that is published as a whole; a longer body is published as it arrives.",
)
@click.option(
    "--max-head-size", type=Size(1024), default="64KiB", show_default=True, metavar="SIZE", help="Largest request head."
)
@click.option(
    "--max-memory",
    type=Size(1 << 20),
    default=None,
    metavar="SIZE",
    help="Memory for all clients together: messages that they have not read, and messages that wait to be published. "
    "Beyond it the slowest clients are disconnected.  [default: a quarter of the machine's memory]",
)
@click.option(
    "--max-connections",
    type=Integer(1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Most connections of each worker.",
)
@click.option(
    "--max-subscriptions",
    type=Integer(0),
    default=None,
    metavar="N",
    help="Most streams of each token and worker.  [default: no limit]",
)
@click.option(
    "--rate",
    type=Number(0),
    default=None,
    metavar="N",
    help="Most requests a second of each token and worker.  [default: no limit]",
)
@click.option(
    "--request-timeout",
    type=Duration(0.1),
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="Time within which the head of a request has to arrive. Its body has the same time, and 1 s more for each "
    "10 kB.",
)
@click.option(
    "--idle-timeout",
    type=Duration(0.1),
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="Time for which a connection may be idle between requests, or within a body of unknown length.",
)
@decode_options("which streams show and where= reads; format=raw, length32 and /message have the body as it was")
@shared.operations_within("5s")
@shared.broker_options
@shared.connection_options
@shared.logging_options
def main(**given: Any) -> int:
    """Topics over HTTP: publish with POST, subscribe with a streaming GET, Server-Sent Events or a WebSocket.

    The response to a POST is sent when the broker has confirmed the message. A streamed message is finished when
    the client's TCP stack has acknowledged it or, with ack=client, when the client finishes it; messages that a
    client leaves unfinished are requeued at once. The path / is a page that shows topics and their messages.
    """  # fmt: skip
    from qtools.cli.run import run_program
    from qtools.pubsub_http.api.startup_checks import raise_file_limit
    from qtools.pubsub_http.flags import options_of

    shared.set_up_logging("q-pubsub-http", given)
    options = options_of(given)
    raise_file_limit()
    if options.token_file:
        from qtools.pubsub_http.api.tokens import read_tokens

        read_tokens(options.token_file)  # an error in it is reported now, and once for all workers
    if options.workers > 1:
        from qtools.pubsub_http.workers import serve_with_workers

        return serve_with_workers(options)
    from qtools.pubsub_http.app import serve

    # uvloop does not show how many bytes wait in the TLS layer, which are needed to know what a client has taken.
    return run_program(lambda signals: serve(options, signals), server=not options.https_cert)


if __name__ == "__main__":
    main()
