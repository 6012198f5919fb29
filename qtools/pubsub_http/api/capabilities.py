"""Refuses requests that need what the engine cannot do. In: a route, its parameters, capabilities. Out: a Refusal 501.

501 is "the server does not support the functionality required to fulfill the request" (RFC 9110, 15.6.2): the same
request may succeed with another broker.
"""

from __future__ import annotations

from collections.abc import Sequence

from qtools.engines.capabilities import Capabilities, what_is_missing
from qtools.pubsub_http.api.parameters import Parameter, Query, Values
from qtools.pubsub_http.api.routes import ApiRoute
from qtools.web.request_body import Refusal

NOT_SUPPORTED = "NOT_SUPPORTED"

# What a client can do instead.
INSTEAD = {
    "temporary_channels": "name a channel without #ephemeral",
    "deferred_publishing": "leave defer out",
    "requeue_delay": "leave delay out",
    "touch": "finish messages in time, or give them back",
    "depths": "end with count or timeout",
    "keys_and_headers": "leave it out",
    "tombstones": "leave it out",
}


def advice(capabilities: Capabilities, capability: str, what: str) -> str:
    """Why `what`, which needs `capability`, is refused, and what to do instead; "" if the engine has the capability."""
    missing = what_is_missing(capabilities, capability)
    return f"{what}: {missing}: {INSTEAD[capability]}" if missing else ""


def check_capability(capabilities: Capabilities, capability: str, what: str) -> None:
    """Raise Refusal 501 if the engine lacks the `capability` that `what` needs."""
    if detail := advice(capabilities, capability, what):
        raise Refusal(501, NOT_SUPPORTED, detail)


def lacking_parameters(capabilities: Capabilities, query: Query) -> list[Parameter]:
    """The parameters of `query` that need what the engine cannot do."""
    return [each for each in query.parameters if each.capability and what_is_missing(capabilities, each.capability)]


def check_request(capabilities: Capabilities, route: ApiRoute, lacking: Sequence[Parameter], values: Values) -> None:
    """Raise Refusal 501 if the engine cannot do what a request for `route` with the parameters `values` asks for.

    lacking: those of `lacking_parameters`.
    """
    if route.capability:
        check_capability(capabilities, route.capability, route.path)
    for parameter in lacking:
        if parameter.needs(values[parameter.name]):
            check_capability(capabilities, parameter.capability, parameter.name)


def check_names(capabilities: Capabilities, values: Values) -> None:
    """Raise Refusal 400 if a topic or a channel among `values` has a name that the engine does not accept."""
    for kind in ("topic", "channel"):
        name = values.get(kind)
        if not name:
            continue
        detail = ""
        if len(name) > (longest := capabilities.longest_name):
            detail = f"{kind} {name!r} has {len(name)} characters, {capabilities.engine} accepts {longest}"
        elif name in capabilities.reserved_names:
            detail = f"{kind} {name!r} is reserved by {capabilities.engine}"
        if detail:
            raise Refusal(400, f"INVALID_{kind.upper()}", detail)
