"""Makes /openapi.json from the routes that are served. In: routes. Out: an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from qtools import __version__
from qtools.names import MAX_NAME_LENGTH
from qtools.pubsub_http.api.parameters import NAME_SCHEMA, Parameter
from qtools.pubsub_http.api.routes import BYTES, ENVELOPE, JSON, LENGTH32, LINES, MSGPACK, NDJSON, ROUTES, SSE, ApiRoute
from qtools.pubsub_http.publish.idempotency import LONGEST

# Answers that every address may give.
EVERYWHERE = {
    400: "a parameter or the body is not what it has to be",
    403: "this token, this Host or this Origin may not",
    431: "the request's head is too large",
    500: "an error of the gateway's own",
}
_ERROR = {"$ref": "#/components/schemas/Error"}
_TEXT = {"type": "string"}
_BINARY: dict[str, Any] = {}  # any bytes
_SCHEMAS = {
    JSON: {}, LINES: _TEXT, NDJSON: _TEXT, BYTES: _BINARY, LENGTH32: _BINARY, MSGPACK: _BINARY, ENVELOPE: _TEXT,
    SSE: {},
}  # fmt: skip
_HEADERS: dict[str, Any] = {"Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": LONGEST}}
_OF_MESSAGE = {
    "Q-Message-Id": "the message's id, 16 hex digits",
    "Q-Attempts": "how often it was delivered",
    "Q-Timestamp": "when it was published, ns since 1970",
    "Q-Key": "its key, if it has one that is printable ASCII",
    "Q-Key-Base64": "its key in base64, if it has any other",
    "Q-Headers": "its headers, if it has any: a JSON object, as in an envelope",
    "Q-Partition": "where a broker with partitions keeps it",
    "Q-Offset": "its offset in the partition",
    "Q-Tombstone": "true if it has no body at all; without this header the body may still be empty",
    "Q-Warning": "what is left out of these headers, or that a proxy may lose what it has taken",
}
_OF_PUBLISH = {
    "Q-Published": "how many messages the broker has",
    "Q-Warning": "what of them was left out, because the broker has no keys and no headers",
    "Idempotent-Replayed": "true if this is the answer to an earlier request with the same Idempotency-Key",
}
_OF_ANSWER = {"message": _OF_MESSAGE, "pub": _OF_PUBLISH, "mpub": _OF_PUBLISH}  # headers of a 200, by operation


def document(longest_name: int = MAX_NAME_LENGTH) -> dict[str, Any]:
    """The OpenAPI document. longest_name: the most characters of the name of a topic or a channel, as the engine
    accepts."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, longest_name)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "q-pubsub-http",
            "version": __version__,
            "description": "Topics over HTTP, with real acknowledgements. Errors are in nsqd's words.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["message"],
                    "properties": {
                        "message": {"type": "string", "description": "a word for programs, such as MSG_TOO_BIG"},
                        "detail": {"type": "string", "description": "a sentence for people"},
                        "published": {
                            "type": "integer",
                            "description": "messages of a body that were published before",
                        },
                    },
                }
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],  # {} where the gateway runs without --token-file
    }


def _operation(route: ApiRoute, longest_name: int) -> dict[str, Any]:
    answers = EVERYWHERE | dict(route.answers)
    if route.capability or any(each.capability for each in route.query.parameters):
        answers[501] = "; ".join(filter(None, (answers.get(501), "the broker cannot do what is asked for")))
    if not route.is_open:
        answers |= {401: "a token is needed", 429: "too many requests, or too many streams"}
    described: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": [*(_parameter(each, longest_name) for each in route.query.parameters), *_headers(route)],
        "responses": {str(status): _answer(route, status, answers[status]) for status in sorted(answers)},
    }
    if route.takes:
        described["requestBody"] = {
            "content": {media: {"schema": _SCHEMAS[media]} for media in route.takes},
            "description": "; ".join(f"{media}: {what}" for media, what in route.takes.items()),
        }
    if route.is_open:
        described["security"] = []
    return described


def _parameter(parameter: Parameter, longest_name: int) -> dict[str, Any]:
    schema = parameter.schema
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.help,
        "schema": schema | {"maxLength": longest_name} if schema is NAME_SCHEMA else schema,
    }


def _headers(route: ApiRoute) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": what, "schema": _HEADERS.get(name, _TEXT)}
        for name, what in route.headers.items()
    ]


def _answer(route: ApiRoute, status: int, what: str) -> dict[str, Any]:
    if status == 204:
        return {"description": what}
    if status != 200:
        refusal: dict[str, Any] = {"description": what, "content": {JSON: {"schema": _ERROR}}}
        if status in (400, 413) and route.refusals:
            refusal["description"] += "".join(f"; {word}: {rule}" for word, rule in route.refusals.items())
        if status == 415:
            refusal["headers"] = {"Accept-Encoding": {"description": "what is decoded", "schema": _TEXT}}
        return refusal
    described: dict[str, Any] = {
        "description": what,
        "content": {media: {"schema": _SCHEMAS[media]} for media in route.gives},
    }
    if headers := _OF_ANSWER.get(route.operation):
        described["headers"] = {name: {"description": text, "schema": _TEXT} for name, text in headers.items()}
    return described
