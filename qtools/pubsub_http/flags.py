"""Checks the flags of q-pubsub-http together. In: the values from click. Out: GatewayOptions, or UsageError."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from qtools.cli import options as shared
from qtools.cli.broker import engine_of
from qtools.cli.flag_rules import Needs, check_rules
from qtools.cli.schemas.options import decoder_if_given
from qtools.errors import UsageError
from qtools.pubsub_http.api.startup_checks import check_address, check_origins
from qtools.pubsub_http.options import GatewayOptions
from qtools.web.memory_budget import default_limit

RULES = (Needs(("https_key",), "https_cert", "--https-key needs --https-cert"),)


class GatewayFlags(TypedDict):
    """The flags that only q-pubsub-http has."""

    http_address: str
    https_cert: str | None
    https_key: str | None
    token_file: str
    insecure: bool
    allow_host: tuple[str, ...]
    allow_origin: tuple[str, ...]
    behind_proxy: bool
    workers: int
    publish_timeout: float
    idempotency_window: float
    heartbeat: float
    max_in_flight: int
    backlog: int | None
    max_msg_size: int
    max_body_size: int
    max_head_size: int
    max_memory: int | None
    max_connections: int
    max_subscriptions: int | None
    rate: float | None
    request_timeout: float
    idle_timeout: float


def options_of(given: dict[str, Any]) -> GatewayOptions:
    """The options for the flags in `given`; UsageError if they do not go together."""
    flags = cast("GatewayFlags", given)
    check_rules(given, RULES)
    if flags["max_body_size"] < flags["max_msg_size"]:
        raise UsageError("--max-body-size is less than --max-msg-size")
    has_tokens = bool(flags["token_file"])
    hosts = check_address(
        flags["http_address"], tokens=has_tokens, tls=bool(flags["https_cert"]), insecure=flags["insecure"],
        names=flags["allow_host"], behind_proxy=flags["behind_proxy"],
    )  # fmt: skip
    origins = check_origins(flags["allow_origin"], tokens=has_tokens)
    others = dict(given)  # each of the functions below takes its own flags out of it
    decoder = decoder_if_given(others, [True], "")
    return GatewayOptions(
        decoder=decoder,
        engine=engine_of("q-pubsub-http", others),
        operations=shared.operations_of(others),
        http_address=flags["http_address"],
        https_cert=flags["https_cert"] or "",
        https_key=flags["https_key"] or "",
        token_file=flags["token_file"],
        hosts=hosts,
        origins=origins,
        behind_proxy=flags["behind_proxy"],
        workers=flags["workers"],
        max_in_flight=flags["max_in_flight"],
        max_msg_size=flags["max_msg_size"],
        max_body_size=flags["max_body_size"],
        max_head_size=flags["max_head_size"],
        max_connections=flags["max_connections"],
        max_subscriptions=flags["max_subscriptions"],
        rate=flags["rate"],
        publish_timeout=flags["publish_timeout"],
        request_timeout=flags["request_timeout"],
        idle_timeout=flags["idle_timeout"],
        heartbeat=flags["heartbeat"],
        idempotency_window=flags["idempotency_window"],
        backlog=flags["backlog"],
        max_memory=flags["max_memory"] or default_limit(),
    )
