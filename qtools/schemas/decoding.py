"""Decodes the bodies of batches. In: batches, from a source. Out: the same batches, each body with its value.

    source.read ─▶ which schemas? ─▶ those that are not known: ask the registry ─▶ decode all, one call for each schema

The bytes of a body stay as they are (attributes.py). A body that cannot be decoded fails in the first expression that
reads it. While the registry is away nothing is read; a batch that waits for it is not lost when the read is cancelled:
the next read goes on with it, and at the end its source gives it back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from qtools.attributes import TOMBSTONE, Attributes, DecodedBody, Headers, UndecodableBody
from qtools.backoff import next_delay
from qtools.flow.contract import FlowSource
from qtools.flow.json_values import encode
from qtools.flow.steps import Passed
from qtools.message import Batch
from qtools.schemas.codecs import make_codec
from qtools.schemas.contract import FORMATS, SchemaCodec, SchemaInvalid, SchemaText
from qtools.schemas.registry import AnswerInvalid, Registry, RegistryAway, SchemaUnknown
from qtools.schemas.wire_format import (
    PREFIX,
    VALUE_HEADER,
    SchemaReference,
    header_value,
    not_framed,
    reference_in_body,
    reference_in_header,
)

logger = logging.getLogger("qtools.schemas")

# A batch is decoded in portions, each of which is a batch for the flow: the event loop runs in between, and only the
# values of those that the flow has taken are in memory. A message may cost a hundred times as much as another one.
PORTION_SECONDS = 0.1
PORTION_BYTES = 1024 * 1024
FIRST_PORTION, LARGEST_PORTION = 500, 2000  # messages
MOST_SCHEMAS = 1000  # compiled schemas that are kept
MOST_UNKNOWN = 10_000  # schemas that could not be used and are remembered
SLOW_SECONDS = 1.0  # without an answer, until that is logged
UNKNOWN_SECONDS = 60.0  # how long: a schema may be registered later


class BodyDecoder(Protocol):
    """Decodes bodies."""

    async def start(self) -> None:
        """StartError if schemas cannot be had."""

    async def decode(self, bodies: Sequence[bytes], headers: Sequence[Headers] | None) -> list[bytes]:
        """Each body as DecodedBody or UndecodableBody; a tombstone as it is. headers: of each message, if it has any.
        Waits while a registry is away; QtoolsError if it refuses to answer."""

    async def close(self) -> None: ...


class FileDecoder:
    """Decodes bodies without a magic byte, all with the same schema."""

    def __init__(self, codec: SchemaCodec) -> None:
        self._codec = codec

    async def start(self) -> None:
        """There is nothing to do."""

    async def decode(self, bodies: Sequence[bytes], headers: Sequence[Headers] | None) -> list[bytes]:
        decoded = self._codec.decode_all(bodies, 0, b"")
        if TOMBSTONE in bodies:
            return [body if body is TOMBSTONE else made for body, made in zip(bodies, decoded, strict=True)]
        return decoded

    async def close(self) -> None:
        """There is nothing to do."""


class SchemaCache:
    """The schemas of one registry, of one kind ("AVRO" …), compiled: at most MOST_SCHEMAS, the oldest are dropped.
    style: of decoded values, as for make_codec."""

    def __init__(self, registry: Registry, kind: str, style: str = "plain") -> None:
        self.registry = registry
        self._style = style
        self._kind = kind
        self._codecs: dict[SchemaReference, SchemaCodec] = {}
        self._unknown: dict[SchemaReference, tuple[float, str]] = {}  # until when, and why
        self._failures = 0  # requests in a row that the registry did not answer
        self._away_since = 0.0
        self._asked_since = 0.0  # since when the registry has been asked without an answer; 0.0: it has answered
        self._is_slow = False  # whether that was logged

    def known(self, reference: SchemaReference) -> SchemaCodec | None:
        return self._codecs.get(reference)

    async def get(self, reference: SchemaReference) -> SchemaCodec | str:
        """The codec for a schema, or why there is none. Waits while the registry is away."""
        if (codec := self._codecs.get(reference)) is not None:
            return codec
        until, why = self._unknown.get(reference, (0.0, ""))
        if time.monotonic() < until:
            return why
        try:
            codec = self._compiled(await self._fetch(reference))
        except (SchemaUnknown, AnswerInvalid, SchemaInvalid) as error:
            self._unknown.pop(reference, None)
            while len(self._unknown) >= MOST_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            self._unknown[reference] = time.monotonic() + UNKNOWN_SECONDS, str(error)
            return str(error)
        while len(self._codecs) >= MOST_SCHEMAS:
            del self._codecs[next(iter(self._codecs))]
        self._codecs[reference] = codec
        return codec

    def _compiled(self, text: SchemaText) -> SchemaCodec:
        if text.kind != self._kind:
            flags = {kind: name for name, kind in FORMATS.items()}
            says = f"needs {flags[text.kind]}" if text.kind in flags else "cannot be decoded"
            raise SchemaInvalid(f"{text.name} is {text.kind[:40]}, not {self._kind}: it {says}")
        try:
            return make_codec(text, style=self._style)
        except SchemaInvalid as error:
            raise SchemaInvalid(f"{text.name} cannot be used: {error}") from error

    async def _fetch(self, reference: SchemaReference) -> SchemaText:
        """The schema, however long the registry is away. Raises SchemaUnknown, AnswerInvalid."""
        while True:
            slow = self._note_slowness_later()
            try:
                text = await self.registry.schema(reference)
            except RegistryAway as error:
                self._note_failure(error)
                slow.cancel()
                await asyncio.sleep(next_delay(self._failures))
                continue
            except (SchemaUnknown, AnswerInvalid):
                self._note_answer()
                raise
            finally:
                slow.cancel()
            self._note_answer()
            return text

    def _note_slowness_later(self) -> asyncio.TimerHandle:
        """Log that the registry has not answered for SLOW_SECONDS, unless it is known to be away. The time counts from
        the first request without an answer, as a read that waits may be cancelled and repeated."""
        loop = asyncio.get_running_loop()
        if not self._asked_since:
            self._asked_since = time.monotonic()

        def note() -> None:
            if not self._failures and not self._is_slow:
                self._is_slow, self._away_since = True, self._asked_since
                logger.warning(
                    "%s: no answer for %.3g s; nothing is read until the schema registry answers, waiting",
                    self.registry.url, SLOW_SECONDS,
                )  # fmt: skip

        return loop.call_later(max(0.0, self._asked_since + SLOW_SECONDS - time.monotonic()), note)

    def _note_failure(self, error: RegistryAway) -> None:
        """Log that the registry is away, when that begins; also where the read is cancelled, and goes on later."""
        if not self._failures:
            if not self._is_slow:
                self._away_since = time.monotonic()
            logger.warning("%s; nothing is read until the schema registry answers, trying again", error)
        self._failures += 1

    def _note_answer(self) -> None:
        self._asked_since = 0.0
        if self._failures or self._is_slow:
            self._failures, self._is_slow = 0, False
            logger.warning("the schema registry answers again, after %.3g s", time.monotonic() - self._away_since)


class RegistryDecoder:
    """Decodes bodies that name their schema, in a header or behind a magic byte."""

    def __init__(self, cache: SchemaCache, header: str = VALUE_HEADER) -> None:
        self._cache = cache
        self._header = header

    async def start(self) -> None:
        await self._cache.registry.start()

    async def decode(self, bodies: Sequence[bytes], headers: Sequence[Headers] | None) -> list[bytes]:
        by_header: dict[bytes, list[int]] = {}
        by_prefix: dict[bytes, list[int]] = {}
        if headers is None:
            prefixes = {body[:PREFIX] for body in bodies}
            if len(prefixes) == 1:  # as nearly always
                return await self._decode_framed(prefixes.pop(), bodies)
            for place, body in enumerate(bodies):
                by_prefix.setdefault(body[:PREFIX], []).append(place)
        else:
            for place, body in enumerate(bodies):
                value = header_value(headers[place], self._header) if headers[place] else None
                if value is None:
                    by_prefix.setdefault(body[:PREFIX], []).append(place)
                else:
                    by_header.setdefault(value, []).append(place)
        decoded: list[bytes] = [b""] * len(bodies)
        for groups, decode in ((by_prefix, self._decode_framed), (by_header, self._decode_by_header)):
            for name, places in groups.items():
                made = await decode(name, [bodies[place] for place in places])
                for place, body in zip(places, made, strict=True):
                    decoded[place] = body
        return decoded

    async def _decode_framed(self, prefix: bytes, bodies: Sequence[bytes]) -> list[bytes]:
        """Decode bodies that begin with `prefix`."""
        reference = reference_in_body(prefix)
        if reference is None:
            return [body if body is TOMBSTONE else UndecodableBody.of(body, not_framed(body)) for body in bodies]
        return await self._decode_with(reference, bodies, PREFIX, None)

    async def _decode_by_header(self, value: bytes, bodies: Sequence[bytes]) -> list[bytes]:
        found = reference_in_header(value)
        if found is None:
            why = f"its header {self._header} holds neither a GUID nor an id of a schema"
            return [body if body is TOMBSTONE else UndecodableBody.of(body, why) for body in bodies]
        return await self._decode_with(found[0], bodies, 0, found[1])

    async def _decode_with(
        self, reference: SchemaReference, bodies: Sequence[bytes], start: int, indexes: bytes | None
    ) -> list[bytes]:
        codec = self._cache.known(reference) or await self._cache.get(reference)
        if isinstance(codec, str):
            return [body if body is TOMBSTONE else UndecodableBody.of(body, codec) for body in bodies]
        made = codec.decode_all(bodies, start, indexes)
        if start:
            return made
        return [body if body is TOMBSTONE else decoded for body, decoded in zip(bodies, made, strict=True)]

    async def close(self) -> None:
        await self._cache.registry.close()


class BatchDecoder:
    """A step that decodes the bodies, the keys, or both of batches. It drops no message, and fails on none.

    shows_keys: the bytes of a decoded key are its JSON, to be printed; otherwise they stay the key's own, to be
    published. A message whose key cannot be decoded counts as one whose body cannot.
    """

    def __init__(
        self, bodies: BodyDecoder | None, keys: BodyDecoder | None = None, *, shows_keys: bool = False
    ) -> None:
        self._bodies = bodies
        self._keys = keys
        self._shows_keys = shows_keys

    @property
    def decodes_keys(self) -> bool:
        return self._keys is not None

    async def start(self) -> None:
        """StartError if schemas cannot be had."""
        for decoder in (self._bodies, self._keys):
            if decoder is not None:
                await decoder.start()

    async def apply(self, batch: Batch) -> Passed:
        """`batch` with values. Waits while a registry is away; QtoolsError if it refuses to answer."""
        wanted = ["headers", "keys"] if self._keys is not None else ["headers"]
        attributes = (batch.attributes(wanted) if batch.has_attributes else None) or Attributes()
        bodies = batch.bodies
        if self._bodies is not None:
            bodies = await self._bodies.decode(bodies, attributes.headers)
        if self._keys is not None and attributes.keys is not None:
            keys, bodies = await self._decode_keys(self._keys, attributes, bodies)
            batch = batch.with_keys(keys)
        return Passed(batch.with_bodies(bodies), range(len(batch)), {})

    def read(self, source: FlowSource) -> DecodingSource:
        """A source that reads from `source` what this step makes of it."""
        return DecodingSource(source, self)

    async def _decode_keys(
        self, decoder: BodyDecoder, attributes: Attributes, bodies: list[bytes]
    ) -> tuple[list[bytes | None], list[bytes]]:
        """The decoded keys, and the bodies, which cannot be decoded where the key cannot."""
        keys: list[bytes | None] = list(attributes.keys or ())
        places = [place for place, key in enumerate(keys) if key is not None]
        headers = [attributes.headers[place] for place in places] if attributes.headers is not None else None
        decoded = await decoder.decode([keys[place] or b"" for place in places], headers)
        bodies = list(bodies)
        for place, key in zip(places, decoded, strict=True):
            if isinstance(key, UndecodableBody):
                bodies[place] = UndecodableBody.of(bodies[place], f"its key cannot be decoded: {key.reason}")
            elif self._shows_keys and isinstance(key, DecodedBody):
                keys[place] = DecodedBody.of(encode(key.value), key.value)
            else:
                keys[place] = key
        return keys, bodies

    async def close(self) -> None:
        for decoder in (self._bodies, self._keys):
            if decoder is not None:
                await decoder.close()


class DecodingSource:
    """A Source whose batches have bodies, and keys, with values."""

    def __init__(self, source: FlowSource, decoder: BatchDecoder) -> None:
        self._source = source
        self._decoder = decoder
        self._waiting: Batch | None = None  # what was read, and is not returned yet
        self._portion = FIRST_PORTION  # messages that are decoded in about PORTION_SECONDS

    async def read(self) -> Batch | None:
        """The next batch, or the next part of one; None at the end. QtoolsError if the registry refuses to answer."""
        if self._waiting is None:
            self._waiting = await self._source.read()
        else:
            await asyncio.sleep(0)
        batch = self._waiting
        if batch is None:
            return None
        count = self._portion_of(batch)
        part, rest = (batch, None) if count == len(batch) else batch.split(count)
        begin = time.thread_time()
        decoded = (await self._decoder.apply(part)).batch
        if self._waiting is not batch:  # it was given back meanwhile
            return None
        took = (time.thread_time() - begin) / max(1, count)
        self._portion = max(1, min(LARGEST_PORTION, int(PORTION_SECONDS / max(took, 1e-9))))
        self._waiting = rest
        return decoded

    def _portion_of(self, batch: Batch) -> int:
        """How many messages of `batch` are decoded now."""
        count = min(self._portion, len(batch))
        sizes = list(accumulate(map(len, batch.bodies[:count])))
        return count if not sizes or sizes[-1] <= PORTION_BYTES else max(1, bisect_right(sizes, PORTION_BYTES))

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the bodies that were read and are not returned yet."""
        return 0 if self._waiting is None else sum(map(len, self._waiting.bodies))

    def give_back(self) -> None:
        """Requeue what was read and is not returned yet; a read that decodes it returns None."""
        if self._waiting is not None:
            self._waiting.requeue()
            self._waiting = None

    async def close(self) -> None:
        """Close the source, which gives back a batch that waits for the registry. The decoder is closed by its
        owner."""
        await self._source.close()
