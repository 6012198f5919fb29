"""A message with its metadata, as JSON or msgpack, and back, without loss.

    envelope    one JSON object a line   {"topic":…,"id":…,"timestamp":…,"attempts":…,"source":…,"body":…}
    msgpack     maps with the same keys, one after the other; the body is a bin

source: the address of the broker that delivered the message. timestamp is in ns since 1970. A body that is not UTF-8
is written as "body_base64"; a tombstone has the body null. Where messages have them, there are also

    "key":…                  or "key_base64"; null for a message without a key
    "headers":{NAME:…}       a value that is not UTF-8 is {"base64":…}, a header without a value null; a list of values
                             where the name occurs more than once
    "partition":… "offset":…

In msgpack keys and values of headers are bins, and the body of a tombstone is nil. Reading needs only the body, and
ignores unknown keys. In: messages, or bytes. Out: bytes, or bodies and envelopes (envelope_records.py).
"""

from __future__ import annotations

import base64
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

import orjson

from qtools.attributes import TOMBSTONE, Attributes, bytes_as_json, headers_by_name
from qtools.errors import InputError
from qtools.formats.lines import LONGEST, DelimiterSplitter
from qtools.message import Batch, Message, Origin


def _fields(message: Message, origin: Origin) -> dict[str, Any]:
    return {  # `join_envelopes` relies on the first key
        "topic": origin.topic,
        "id": message.id.decode("latin-1"),
        "timestamp": message.timestamp,
        "attempts": message.attempts,
        "source": origin.address,
    }


def _add_attributes(fields: dict[str, Any], attributes: Attributes, place: int) -> None:
    """Add key, headers, partition and offset, as bytes and numbers."""
    keys, headers, _, partitions, offsets, *_ = attributes
    if keys is not None:
        fields["key"] = keys[place]
    if headers is not None and headers[place]:
        fields["headers"] = headers_by_name(headers[place])
    if partitions is not None and offsets is not None:
        fields["partition"], fields["offset"] = partitions[place], offsets[place]


def encode_bytes(fields: dict[str, Any]) -> None:
    """Replace the bytes of "key" and "headers" in `fields` by what JSON can hold."""
    key = fields.get("key")
    if key is not None:
        try:
            fields["key"] = key.decode("utf-8")
        except UnicodeDecodeError:
            del fields["key"]
            fields["key_base64"] = base64.b64encode(key).decode("ascii")
    if "headers" in fields:
        fields["headers"] = {name: bytes_as_json(value) for name, value in fields["headers"].items()}


def encode_envelopes(batch: Batch) -> list[bytes]:
    """A line of JSON for each message, with its newline."""
    return [orjson.dumps(envelope, option=orjson.OPT_APPEND_NEWLINE) for envelope in _envelopes(batch)]


def join_envelopes(batch: Batch) -> bytes:
    """The lines of `encode_envelopes` as one, made by one call of orjson: a third of the time from 200 messages on.

    The end of an envelope and the beginning of the next cannot occur within one: in a JSON string each " has a
    backslash before it, the " that ends a string is followed by a comma, a colon or a bracket, and within an envelope
    no object that begins with "topic" follows another (headers are an object; their values have the key "base64").
    """
    envelopes = _envelopes(batch)
    if len(envelopes) < 2:
        return b"".join(orjson.dumps(envelope, option=orjson.OPT_APPEND_NEWLINE) for envelope in envelopes)
    return orjson.dumps(envelopes)[1:-1].replace(b'},{"topic":', b'}\n{"topic":') + b"\n"


def _envelopes(batch: Batch) -> list[dict[str, Any]]:
    envelopes: list[dict[str, Any]] = []
    attributes = batch.attributes()
    for origin, start, stop in batch.parts:
        for place, message in enumerate(batch.messages[start:stop], start):
            fields = _fields(message, origin)
            if attributes is not None:
                _add_attributes(fields, attributes, place)
                encode_bytes(fields)
            body = message.body
            try:
                fields["body"] = None if body is TOMBSTONE else body.decode("utf-8")
            except UnicodeDecodeError:
                fields["body_base64"] = base64.b64encode(body).decode("ascii")
            envelopes.append(fields)
    return envelopes


def encode_msgpack(batch: Batch) -> list[bytes]:
    """One msgpack map for each message."""
    import msgpack

    pack = msgpack.Packer(use_bin_type=True).pack
    attributes = batch.attributes()
    packed: list[bytes] = []
    for origin, start, stop in batch.parts:
        for place, message in enumerate(batch.messages[start:stop], start):
            fields = _fields(message, origin)
            if attributes is not None:
                _add_attributes(fields, attributes, place)
            fields["body"] = None if message.body is TOMBSTONE else message.body
            packed.append(pack(fields))
    return packed


def decode_envelope(line: bytes) -> bytes:
    """The body in a line of JSON; ValueError whose text continues "the line …"."""
    return body_of(parse_envelope(line))


def parse_envelope(line: bytes) -> dict[str, Any]:
    """A line of JSON as a dict; ValueError as above."""
    try:
        envelope = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if line.startswith(BOM_UTF8):  # RFC 8259, 8.1: a parser may ignore it
            return parse_envelope(line.removeprefix(BOM_UTF8))
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(envelope, dict):
        raise ValueError("is not a JSON object")
    return envelope


def body_of(envelope: dict[str, Any]) -> bytes:
    """The body in an envelope, TOMBSTONE if it says that there is none; ValueError as above."""
    body = envelope.get("body")
    if isinstance(body, str):
        return body.encode("utf-8")
    packed = envelope.get("body_base64")
    if body is None and isinstance(packed, str):
        return _from_base64("body_base64", packed)
    if body is None and "body" in envelope and packed is None:
        return TOMBSTONE
    raise ValueError('has neither a "body" nor a "body_base64" that is a string')


def has_attributes(envelope: dict[str, Any]) -> bool:
    """Whether there is a key, or a header, in an envelope."""
    return envelope.get("key") is not None or "key_base64" in envelope or bool(envelope.get("headers"))


def key_of(envelope: dict[str, Any]) -> bytes | None:
    """The key in an envelope, None if it has none; ValueError as above."""
    if "key_base64" in envelope:
        return _from_base64("key_base64", envelope["key_base64"])
    key = envelope.get("key")
    if key is not None and not isinstance(key, str):
        raise ValueError('has a "key" that is not a string')
    return None if key is None else key.encode("utf-8")


def headers_of(envelope: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    """The headers in an envelope; ValueError as above. Headers with the same name follow each other, in their order;
    an envelope does not hold what stood between them."""
    found = envelope.get("headers")
    if found is None:
        return []
    if not isinstance(found, dict):
        raise ValueError('has "headers" that are not an object')
    return [
        (name, _header_value(name, value))
        for name, values in found.items()
        for value in (values if isinstance(values, list) else [values])
    ]


def _header_value(name: str, value: Any) -> bytes | None:
    """A header's value as `bytes_as_json` has written it."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, dict) and "base64" in value:
        return _from_base64(f"header {name!r}", value["base64"])
    raise ValueError(f"has a header {name!r} that is neither a string nor base64")


def _from_base64(field: str, text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"has a {field} that is not a string")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, or ValueError itself for characters that are not ASCII
        raise ValueError(f"has a {field} that is not base64 ({error})") from error


class _RecordSplitter:
    """What both splitters have: the fields of a Splitter (lines.py).

    record_of: makes of an envelope what is kept of it in `records`, of the bodies that were returned last; ValueError
    whose text continues "the line …". keep_empty: return empty bodies and tombstones too. on_attributes: called once,
    at the first envelope with a key or headers.
    """

    def __init__(
        self,
        longest: int = LONGEST,
        *,
        base: int = 0,
        record_of: Callable[[dict[str, Any]], Any] | None = None,
        keep_empty: bool = False,
        on_attributes: Callable[[], None] | None = None,
    ) -> None:
        self.records: list[Any] | None = None
        self.base = base
        self.consumed = 0
        self.overhead = 0
        self.ends: list[int] | None = []
        self.empty = 0
        self.empty_at: list[int] = []
        self._longest = longest
        self._record_of = record_of
        self._keep_empty = keep_empty
        self._on_attributes = on_attributes
        self._broken: InputError | None = None
        self._start()

    def _start(self) -> None:
        """Make what the derived class needs."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Forget what belongs to the bodies that were returned last. Raises the error that was found behind them."""
        if self._broken is not None:
            raise self._broken
        self.empty_at = []
        self.records = None if self._record_of is None else []


class EnvelopeSplitter(_RecordSplitter):
    """Lines of JSON in, bodies out. InputError names the line and the offset of a broken envelope."""

    def _start(self) -> None:
        self._lines = DelimiterSplitter(b"\n", self._longest, base=self.base)
        self._line = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        return self._decode(self._lines.feed_all(chunk), 1)

    def end(self) -> list[bytes]:
        return self._decode(self._lines.end(), 0)

    def _decode(self, lines: list[bytes], delimiter: int) -> list[bytes]:
        self._begin()
        ends = self.ends = []
        bodies: list[bytes] = []
        record_of = self._record_of
        records = [] if self.records is None else self.records
        for place, line in enumerate(lines):
            self._line += 1
            try:
                envelope = parse_envelope(line) if line else {}
                body = body_of(envelope) if line else b""
                is_kept = body or (self._keep_empty and line)
                record = record_of(envelope) if record_of is not None and is_kept else None
            except ValueError as error:
                at = self.base + self.consumed
                which = f"the line at byte {at}" if self.base else f"line {self._line} (at byte {at})"
                self._broken = InputError(f"{which} {error}", at)
                if not bodies:
                    raise self._broken from error
                return bodies
            self.consumed += len(line) + delimiter
            ends.append(self.consumed)
            if is_kept:
                bodies.append(body)
                records.append(record)
            else:
                self.empty += 1
                self.empty_at.append(place)
            if self._on_attributes is not None and has_attributes(envelope):
                self._on_attributes()
                self._on_attributes = None
        return bodies


class MsgpackSplitter(_RecordSplitter):
    """msgpack maps in, bodies out. InputError names the offset of a broken map."""

    def _start(self) -> None:
        import msgpack

        self._out_of_data: type[Exception] = msgpack.OutOfData
        self._buffer_full: type[Exception] = msgpack.BufferFull
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=self._longest + 1024 * 1024, strict_map_key=False)
        self._fed = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        self._begin()
        ends = self.ends = []
        bodies: list[bytes] = []
        record_of = self._record_of
        records = [] if self.records is None else self.records
        self._fed += len(chunk)
        try:
            self._unpacker.feed(chunk)
            while True:
                envelope = self._unpacker.unpack()
                body = envelope.get("body", "") if isinstance(envelope, dict) else ""
                if body is None:
                    body = TOMBSTONE
                if not isinstance(body, bytes):
                    raise ValueError('it is not a map with a binary "body"')
                is_kept = body or self._keep_empty
                record = record_of(envelope) if record_of is not None and is_kept else None
                self.consumed = self._unpacker.tell()
                ends.append(self.consumed)
                if is_kept:
                    bodies.append(body)
                    records.append(record)
                else:
                    self.empty += 1
                    self.empty_at.append(len(bodies) + len(self.empty_at))
                if self._on_attributes is not None and has_attributes(envelope):
                    self._on_attributes()
                    self._on_attributes = None
        except self._out_of_data:
            pass
        except Exception as error:  # msgpack raises ValueError, UnpackException and, on bad UTF-8, others
            at = self.base + self.consumed
            too_long = isinstance(error, self._buffer_full)
            if too_long:
                reason = f"a message of more than {self._longest} bytes begins at byte {at}: is it msgpack?"
            else:
                reason = f"the msgpack value at byte {at} is broken: {str(error) or type(error).__name__}"
            self._broken = InputError(reason, at, too_long=too_long)
            if not bodies:
                raise self._broken from error
        return bodies

    def end(self) -> list[bytes]:
        self._begin()
        if self._fed > self.consumed:
            at = self.base + self.consumed
            raise InputError(f"the input ends within the msgpack value at byte {at}", at)
        return []
