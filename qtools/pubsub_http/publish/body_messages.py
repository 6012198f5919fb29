"""The messages in the body of one request to /mpub. In: chunks of the body, its format. Out: bodies, keys and headers,
or a Refusal that names the message.

    lines             an empty line is no message, as with nsqd
    length32          an empty message is published by an engine that has empty messages, and refused for any other
    envelope, msgpack the same, also for a message without a body; key and headers are kept by an engine that has them
"""

from __future__ import annotations

from typing import Any, NamedTuple

from qtools.attributes import TOMBSTONE, Attributes, Headers
from qtools.engines.capabilities import Capabilities, what_is_missing
from qtools.errors import InputError
from qtools.flow.keying import replace_headers
from qtools.formats.lines import DelimiterSplitter, LengthSplitter, Splitter
from qtools.web.request_body import Refusal


class GivenAttributes(NamedTuple):
    """The key and the headers that the query of a request gives to all its messages. key: None for the key that a
    message has. headers: instead of headers of the same names."""

    key: bytes | None = None
    headers: Headers = ()

    def replace_in(self, had: Attributes | None, count: int) -> Attributes | None:
        """The attributes of `count` messages that had the attributes `had`; None if they have none."""
        if self.key is None and not self.headers:
            return had
        had = had or Attributes()
        if self.key is not None:
            had = had._replace(keys=[self.key] * count)
        if self.headers:
            had = had._replace(headers=replace_headers(had.headers, [self.headers] * count))
        return had


class MessageGroup(NamedTuple):
    """Messages that are published together. records: the keys and headers of envelopes (envelope_records.py); empty if
    they are not kept."""

    bodies: list[bytes]
    records: list[Any]

    def extend(self, other: MessageGroup) -> None:
        self.bodies.extend(other.bodies)
        self.records.extend(other.records)


class BodyMessages:
    """Splits one body. form: "lines", "length32", "msgpack" or "envelope". max_message: bytes of a message.

    warning: what of the messages is left out; "" for nothing.
    """

    def __init__(self, form: str, capabilities: Capabilities, given: GivenAttributes, max_message: int) -> None:
        self.warning = ""
        self._capabilities = capabilities
        self._given = given
        self._max_message = max_message
        self._count = 0  # messages that were split
        self._splitter = self._make_splitter(form)
        # A line is never empty.
        self._may_refuse = form != "lines" and not (capabilities.empty_messages and capabilities.tombstones)

    def split(self, chunk: bytes, more: bool) -> tuple[MessageGroup, Refusal | None]:
        """The messages that end in `chunk`, and why the next one and all after it are refused, or None. more: whether
        more chunks follow."""
        bodies: list[bytes] = []
        records: list[Any] = []
        failure: Refusal | None = None
        try:
            bodies = self._splitter.feed(chunk)
            records = self._splitter.records or records
            if not more:
                bodies += self._splitter.end()
                records += self._splitter.records or ()
        except InputError as error:
            failure = self._refusal(error)
        count = len(bodies)
        if bodies and max(map(len, bodies)) > self._max_message:
            count = next(place for place, body in enumerate(bodies) if len(body) > self._max_message)
            failure = self.too_big(self._max_message)
        if self._may_refuse and not all(bodies[:count]):
            for place in range(count):
                if not bodies[place] and (missing := self._what_is_missing(bodies[place])):
                    count, failure = place, self._is_empty(bodies[place], self._count + place + 1, missing)
                    break
        if count < len(bodies):
            bodies, records = bodies[:count], records[:count]
        self._count += count
        return MessageGroup(bodies, records), failure

    def attributes_of(self, group: MessageGroup) -> Attributes | None:
        """Keys and headers of the messages; None if they have none."""
        had: Attributes | None = None
        if group.records:
            from qtools.formats.envelope_records import attributes_of

            had = attributes_of(group.records, ("keys", "headers"))
        return self._given.replace_in(had, len(group.bodies))

    # A new exception each time: one that is raised again would keep the frames of the first time, with their bodies.
    @staticmethod
    def too_big(max_message: int) -> Refusal:
        return Refusal(413, "MSG_TOO_BIG", f"a message may have {max_message} bytes")

    # ── inside ──

    def _make_splitter(self, form: str) -> Splitter:
        if form == "length32":
            return LengthSplitter(self._max_message, keep_empty=True)
        if form == "lines":
            return DelimiterSplitter(b"\n", self._max_message)
        from qtools.formats.envelope import EnvelopeSplitter, MsgpackSplitter
        from qtools.formats.envelope_records import RECORD_OF, EnvelopeRecord

        def record_of(envelope: dict[str, Any]) -> EnvelopeRecord:
            _, key, headers = made(envelope)
            return EnvelopeRecord({}, key, headers)  # without the envelope, which holds the body once more

        made = RECORD_OF[form]
        more: dict[str, Any] = {"keep_empty": True}
        more |= {"record_of": record_of} if self._capabilities.keys_and_headers else {"on_attributes": self._warn}
        if form == "msgpack":
            return MsgpackSplitter(self._max_message, **more)
        # An envelope is longer than what is in it: six times where every byte is escaped, and what goes around it.
        return EnvelopeSplitter(6 * self._max_message + 4096, **more)

    def _warn(self) -> None:
        missing = what_is_missing(self._capabilities, "keys_and_headers")
        self.warning = f"{missing}: those of the envelopes are left out"

    def _what_is_missing(self, body: bytes) -> str:
        """What the engine cannot do with `body`, which has no bytes; "" if it can publish it."""
        return what_is_missing(self._capabilities, "tombstones" if body is TOMBSTONE else "empty_messages")

    @staticmethod
    def _is_empty(body: bytes, number: int, missing: str) -> Refusal:
        what = "has no body (it is a tombstone)" if body is TOMBSTONE else "is empty"
        return Refusal(400, "MSG_EMPTY", f"message {number} {what}, and {missing}")

    def _refusal(self, error: InputError) -> Refusal:
        if error.too_long:
            return Refusal(413, "MSG_TOO_BIG", str(error))
        return Refusal(400, "BAD_MESSAGE", str(error))
