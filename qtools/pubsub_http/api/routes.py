"""Every address: its parameters and its answers. asgi_app.py serves it, and openapi.py describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qtools.pubsub_http.api.parameters import (
    Query,
    channel,
    choice,
    flag,
    key,
    key_base64,
    message_header,
    seconds,
    text,
    topic,
    whole,
)

MAX_DEFER = 3_600_000  # ms: nsqd's --max-req-timeout
MAX_IN_FLIGHT = 100_000
LONGEST_WHERE = 4096  # characters
DAY = 86_400.0
FORMS = ("envelope", "raw", "length32", "msgpack", "sse")
LINES, JSON, NDJSON, BYTES = "text/plain", "application/json", "application/x-ndjson", "application/octet-stream"
LENGTH32, MSGPACK, ENVELOPE = (
    "application/vnd.qtools.length32",
    "application/msgpack",
    "application/vnd.qtools.envelope",
)
SSE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One method of one address. `right` is what a token needs for it: publish, subscribe, or "" for any token.

    takes: media types of the body, each with what it is. answers: status → what it means.
    gives: media types of a 200. headers: of the request, each with its meaning. is_open: needs no token.
    refusals: error codes of a 400 (or of nsqd's 413) for rules that no schema of one parameter can state, each with its
    rule.
    capability: what the engine must be able to do for it, whatever the parameters are.
    """

    operation: str
    method: str
    path: str
    summary: str
    query: Query = field(default_factory=Query)
    right: str = ""
    takes: Mapping[str, str] = field(default_factory=dict)
    gives: tuple[str, ...] = (JSON,)
    answers: Mapping[int, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    is_open: bool = False
    refusals: Mapping[str, str] = field(default_factory=dict)
    capability: str = ""

    @property
    def is_safe(self) -> bool:
        """Whether a GET takes nothing (RFC 9110, 9.2.1), so that HEAD may be answered as it."""
        return self.method == "GET" and self.right != "subscribe"


_TOPIC = topic("the topic")
_CHANNEL = channel("the channel, a named reader's queue", required=True)
_WHERE = text("where", "only messages for which this expression holds, a subset of jq over their JSON", LONGEST_WHERE)
_MSG_TIMEOUT = whole(
    "msg_timeout", "ms until a message that is not finished comes again (ack=client)", 1000, 900_000, 60_000
)
_KEY = {
    "Idempotency-Key": "a request that repeats a key within the window is answered as the first, and not done again"
}

_BODY = {
    408: "the body came too slowly",
    415: "the body's Content-Encoding is none of gzip, deflate and zstd",
    501: "the body's Transfer-Encoding is not chunked",
}
_CODED = {"INVALID_CONTENT_ENCODING": "the body is not what its Content-Encoding says, or is cut off"}
_REUSED = "IDEMPOTENCY_KEY_REUSED: the key came before with another body"
_PUBLISH = {
    **_BODY,
    502: "the broker refused the topic",
    503: "no broker can be reached; only the `published` messages were published",
    504: "the broker has not answered in time; it may have taken it",
}
_NO_TOPIC = "there is no such topic, and the broker creates none by itself"
_READ = {503: "no broker can be reached"}

SUBSCRIBE = Query(
    _TOPIC,
    channel("the channel; without it a temporary one that begins now", required=False),
    choice("format", "how messages are written; default: by Accept, else envelope", *FORMS),
    choice(
        "ack",
        "auto: finished when your host has received it; client: when you finish it",
        "auto",
        "client",
        default="auto",
    ),
    _WHERE,
    whole(
        "max_in_flight",
        "how many messages may be unfinished at once; default 2500, with ack=client 100",
        1,
        MAX_IN_FLIGHT,
    ),
    whole("count", "end after so many messages", 1, 2**53),
    seconds("timeout", "end after so many seconds", 0.001, 365 * DAY),
    flag("until_empty", "end when nothing is left in the channel", capability="depths"),
    _MSG_TIMEOUT,
)

_SESSION = text("session", "the session: the header Q-Session, or the event `session`", 128, required=True)
_IDS = text("id", "a message; or name them in the body", 64, repeated=True)
_NAMES = {LINES: "message ids, one a line", JSON: "an array of message ids"}
_OF_SESSION = {404: "there is no such session, or no longer", 413: "the body is too large", **_BODY}
_NO_IDS = {
    "MISSING_ARG_ID": "at least one message is named, by id= or in the body",
    "BAD_BODY": "a body of application/json is an array of message ids",
    **_CODED,
}

ROUTES = (
    ApiRoute(
        "pub", "POST", "/pub", "Publish the body as one message",
        Query(_TOPIC, whole("defer", "ms that the broker holds it back", 0, MAX_DEFER, 0,
                            invalid="INVALID_DEFER", capability="deferred_publishing"),
              key("the message's key"), key_base64("the key in base64, if it is not text"),
              message_header("a header of the message, NAME:VALUE; repeatable"),
              flag("tombstone", "the message has no body at all, which deletes its key", capability="tombstones")),
        "publish", {BYTES: "the message"}, (LINES,),
        {200: "the broker has it", 413: "it is too large", 422: _REUSED, **_PUBLISH},
        _KEY,
        refusals={
            "MSG_EMPTY": "the broker has no empty messages: a message has at least one byte",
            "INVALID_ARG_KEY_BASE64": "key and key_base64 are not given together",
            "INVALID_ARG_TOMBSTONE": "a tombstone has no body",
            **_CODED,
        },
    ),
    ApiRoute(
        "mpub", "POST", "/mpub", "Publish the messages in the body, as they come where it has no end",
        Query(
            _TOPIC,
            choice("format", "what the body is; default: by Content-Type", "lines", "length32", "msgpack", "envelope"),
            flag("binary", "the body is nsqd's: a count, and each message with its length before it"),
            key("the key of all messages, instead of those of envelopes"),
            key_base64("that key in base64, if it is not text"),
            message_header("a header of all messages, NAME:VALUE, instead of those of that name; repeatable"),
        ),
        "publish",
        {
            LINES: "a message a line", NDJSON: "a message a line", LENGTH32: "each with its length before it, 4 bytes",
            MSGPACK: 'maps with a "body"; "key" and "headers" are published, too, by a broker that has them',
            ENVELOPE: 'JSON objects with a "body" or "body_base64", one a line; "key" (or "key_base64") and "headers"'
            " are published, too, by a broker that has them",
        },
        (LINES,),
        {200: "the broker has them all", 413: "a message, or a body that is taken whole, is too large",
         422: _REUSED, **_PUBLISH},
        _KEY,
        refusals={
            "INVALID_ARG_BINARY": "binary and format are not given together",
            "INVALID_ARG_KEY_BASE64": "key and key_base64 are not given together",
            "MSG_EMPTY": "the broker has no empty messages, and a message is empty or has no body",
            "BAD_MESSAGE": "a message is not valid in the body's format, or the broker refuses it",
            "BAD_BODY": "with binary=true the body is a count, and that many messages with their lengths",
            "INVALID_REQUEST": "a body that is taken as it comes has an end",
            **_CODED,
        },
    ),
    ApiRoute(
        "sub", "GET", "/sub", "Stream messages; also as a WebSocket", SUBSCRIBE, "subscribe",
        gives=(NDJSON, LINES, LENGTH32, MSGPACK, SSE),
        answers={200: "messages, until you hang up or what you asked for is done",
                 404: _NO_TOPIC, 406: "none of the accepted types is one of these",
                 409: "the topic has messages and no channel: a temporary one would take them", **_READ},
        refusals={
            "INVALID_ARG_FORMAT": "ack=client needs a format with ids: not raw, not length32; a WebSocket has no"
            " length32 and no sse",
            "MISSING_ARG_CHANNEL": "until_empty needs a channel",
            "INVALID_ARG_WHERE": "where is an expression",
        },
        headers={"Last-Event-ID": "what had arrived, of Server-Sent Events: it is finished, and does not come again"},
    ),
    ApiRoute(
        "message", "GET", "/message", "Take one message",
        Query(_TOPIC, _CHANNEL, seconds("wait", "seconds to wait for one", 0.0, 3600.0, 0.0)), "subscribe",
        gives=(BYTES,), answers={200: "the message", 204: "there is none", 404: _NO_TOPIC, **_READ},
    ),
    ApiRoute(
        "finish", "POST", "/finish", "Finish messages of a session", Query(_SESSION, _IDS), "subscribe", _NAMES,
        answers={200: "how many were finished, and which were not in flight", **_OF_SESSION}, refusals=_NO_IDS,
    ),
    ApiRoute(
        "requeue", "POST", "/requeue", "Give messages of a session back",
        Query(_SESSION, _IDS, whole("delay", "ms until they come again", 0, MAX_DEFER, 0, capability="requeue_delay")),
        "subscribe", _NAMES,
        answers={200: "how many were requeued, and which were not in flight", **_OF_SESSION}, refusals=_NO_IDS,
    ),
    ApiRoute(
        "touch", "POST", "/touch", "Ask for more time for messages of a session", Query(_SESSION, _IDS), "subscribe",
        _NAMES, answers={200: "how many have more time, and which were not in flight", **_OF_SESSION},
        refusals=_NO_IDS, capability="touch",
    ),
    ApiRoute(
        "topics", "GET", "/topics", "What waits in every topic and channel that you may read",
        answers={200: "topics", **_READ}, capability="depths",
    ),
    ApiRoute("ping", "GET", "/ping", "Whether it is there", gives=(LINES,), answers={200: "OK"}, is_open=True),
    ApiRoute("openapi", "GET", "/openapi.json", "This document", answers={200: "OpenAPI 3.1"}, is_open=True),
)  # fmt: skip
