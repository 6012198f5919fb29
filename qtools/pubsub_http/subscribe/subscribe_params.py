"""The parameters of a subscriber. In: a query, Accept. Out: one plain object, or a Refusal."""

from __future__ import annotations

from dataclasses import dataclass

from qtools.pubsub_http.api.parameters import Values
from qtools.pubsub_http.api.routes import BYTES, ENVELOPE, LENGTH32, LINES, MSGPACK, NDJSON, SSE
from qtools.pubsub_http.subscribe.rendered_batch import DECODED, FORMATS, Where, compile_where
from qtools.web.request_body import Refusal

CLIENT_MAX_IN_FLIGHT = 100  # with ack=client: a client has not a whole queue in flight unless it asks for it

MEDIA = {
    "envelope": NDJSON,
    "raw": LINES + "; charset=utf-8",
    "length32": LENGTH32,
    "msgpack": MSGPACK,
    "sse": SSE,
}
_ACCEPTED = {
    NDJSON: "envelope", "application/jsonl": "envelope", "application/json": "envelope", ENVELOPE: "envelope",
    LINES: "raw", BYTES: "length32", LENGTH32: "length32", MSGPACK: "msgpack",
    "application/x-msgpack": "msgpack", "application/vnd.msgpack": "msgpack", SSE: "sse",
    "*/*": "envelope", "application/*": "envelope", "text/*": "raw",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SubscribeParams:
    """Times in s. channel: "" for a temporary one. shows_json: bodies and keys are decoded, and shown as JSON where the
    form names them."""

    topic: str
    channel: str
    form: str
    acks: bool  # ack=client
    where: Where | None
    max_in_flight: int
    count: int | None
    timeout: float | None
    until_empty: bool
    msg_timeout: float
    shows_json: bool = False

    @property
    def rendering(self) -> str:
        """The name of the form for rendered_batch.FORMATS."""
        decoded = DECODED + self.form
        return decoded if self.shows_json and decoded in FORMATS else self.form

    @property
    def source(self) -> str:
        """What is subscribed to, for messages."""
        return f"{self.topic}/{self.channel}" if self.channel else self.topic


def read_subscribe_params(
    values: Values, accept: str, most_in_flight: int, *, websocket: bool = False, shows_json: bool = False
) -> SubscribeParams:
    """The parameters in a query and an Accept header. websocket: for a WebSocket, which ignores Accept. shows_json: as
    in SubscribeParams."""
    form = values["format"] or ("envelope" if websocket else form_of(accept))
    if websocket and form in ("length32", "sse"):
        raise Refusal(400, "INVALID_ARG_FORMAT", f"a WebSocket has messages of its own: format {form} is for HTTP")
    acks = values["ack"] == "client"
    if acks and form in ("raw", "length32"):
        raise Refusal(400, "INVALID_ARG_FORMAT", f"format {form} has no ids, which ack=client needs")
    if values["until_empty"] and not values["channel"]:
        raise Refusal(400, "MISSING_ARG_CHANNEL", "until_empty needs a channel: a temporary one begins empty")
    asked = values["max_in_flight"] or (min(CLIENT_MAX_IN_FLIGHT, most_in_flight) if acks else most_in_flight)
    return SubscribeParams(
        topic=values["topic"],
        channel=values["channel"] or "",
        form=form,
        acks=acks,
        where=compile_where(values["where"]) if values["where"] else None,
        max_in_flight=min(asked, most_in_flight),
        count=values["count"],
        timeout=values["timeout"],
        until_empty=values["until_empty"],
        msg_timeout=values["msg_timeout"] / 1000,
        shows_json=shows_json,
    )


def form_of(accept: str) -> str:
    """The format that `accept` prefers (RFC 9110, 12.5.1); Refusal 406 if it accepts none."""
    if not accept:
        return "envelope"
    accepted: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept.split(",")):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if media in _ACCEPTED and weight > 0:
            accepted.append((-weight, place, _ACCEPTED[media]))
    if not accepted:
        known = ", ".join(sorted({media for media in _ACCEPTED if "*" not in media}))
        raise Refusal(406, "NOT_ACCEPTABLE", f"there are: {known}")
    return min(accepted)[2]
