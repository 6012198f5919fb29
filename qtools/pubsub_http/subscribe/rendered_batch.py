"""A batch on its way to clients. In: a batch, the name of a format, a condition. Out: its bytes; the messages that
pass.

When many clients get the same batch (fanout.py), each format is rendered once, and the JSON parsed once, for all of
them. The formats are those of qtools.formats, and Server-Sent Events. With --decode, those that name the fields of a
message show the decoded JSON; raw and length32 have the original bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

from qtools.attributes import DecodedBody
from qtools.errors import EvaluationError, ExpressionError
from qtools.expressions.expression import NOTHING, compile_expression
from qtools.flow.json_values import encode, parser_for
from qtools.flow.variables import Row, rows_of
from qtools.formats.encoders import Format, make_format
from qtools.formats.envelope import encode_envelopes
from qtools.message import Batch
from qtools.web.memory_budget import OVERHEAD
from qtools.web.request_body import Refusal

_NO_JSON = object()


def event_pieces(batch: Batch, suffix: bytes = b"") -> list[bytes]:
    """Server-Sent Events (HTML Standard, 9.2.5) with the envelope as data: a single line, as JSON has no newlines in
    it.

    suffix: bytes that follow the id of the message in the id of the event.
    """
    return [
        b"id: " + ident + suffix + b"\ndata: " + line + b"\n"
        for ident, line in zip(batch.messages.ids, encode_envelopes(batch), strict=True)
    ]


def with_json(batch: Batch) -> Batch:
    """The messages of `batch`, with the JSON of decoded bodies and keys in their place; others stay what they are."""
    shown = batch.with_bodies([_as_json(body) for body in batch.bodies])
    attributes = batch.attributes(("keys",))
    if attributes is None or attributes.keys is None:
        return shown
    return shown.with_keys([None if key is None else _as_json(key) for key in attributes.keys])


def _as_json(body: bytes) -> bytes:
    return encode(body.value) if isinstance(body, DecodedBody) else body


FORMATS = {name: make_format(name) for name in ("envelope", "raw", "length32", "msgpack")} | {
    "sse": Format(event_pieces)
}


def _showing_json(form: Format) -> Format:
    """`form` with the JSON of what was decoded."""
    return Format(lambda batch: form.pieces(with_json(batch)), lambda batch: form.join(with_json(batch)))


DECODED = "decoded "
FORMATS |= {DECODED + name: _showing_json(FORMATS[name]) for name in ("envelope", "msgpack", "sse")}


class Where:
    """A condition on a message's JSON, and on its variables, of which it uses `variables`. reads_body: whether it uses
    the JSON."""

    def __init__(self, text: str) -> None:
        self.text = text
        expression = compile_expression(text, regex=False)
        self.variables = expression.variables
        self.reads_body = expression.reads_body
        self._evaluate = expression.evaluate

    def holds(self, value: Any, row: Row) -> bool | None:
        """Whether the condition is true for a message; None if the expression fails, or needs JSON and has none."""
        if value is _NO_JSON:
            return None
        try:
            result = self._evaluate(value, row)
        except EvaluationError:
            return None
        return result is not None and result is not False and result is not NOTHING

    def why_not(self, batch: Batch, place: int) -> str:
        """Why the condition has no result for a message of `batch`."""
        body, (row,) = batch.bodies[place], rows_of(batch.pick([place]), self.variables)
        try:
            self._evaluate(parser_for([body])(body) if self.reads_body else None, row)
        except EvaluationError as error:
            return str(error)
        return ""


@lru_cache(maxsize=256)
def compile_where(text: str) -> Where:
    """The condition in `text`; Refusal 400 for an invalid one, and for test(…), whose pattern may never end."""
    try:
        return Where(text)
    except ExpressionError as error:
        raise Refusal(400, "INVALID_ARG_WHERE", str(error)) from error


class RenderedBatch:
    """One batch. shared: it goes to many clients, and is finished already, whatever they acknowledge. weight: how many
    bytes of memory a byte of a body takes, as far as is known."""

    __slots__ = ("_places", "_rendered", "_undecided", "_values", "batch", "shared", "size")

    def __init__(self, batch: Batch, shared: bool = False, weight: int = 1) -> None:
        self.batch = batch
        self.shared = shared
        self.size = weight * sum(map(len, batch.bodies))  # bytes
        self._rendered: dict[str, bytes] = {}
        self._places: dict[str, Sequence[int]] = {}
        self._undecided: dict[str, list[int]] = {}
        self._values: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.batch)

    def memory(self) -> int:
        """Bytes that it holds, its shared renderings included."""
        return self.size + OVERHEAD * len(self.batch) + sum(map(len, self._rendered.values()))

    def passing(self, where: Where) -> Sequence[int]:
        """The places of the messages for which `where` holds."""
        places = self._places.get(where.text)
        if places is None:
            values: Iterable[Any] = repeat(None)
            if where.reads_body:
                values = self._values = self._values or _values(self.batch.bodies)
            answers = list(map(where.holds, values, rows_of(self.batch, where.variables)))
            places = self._places[where.text] = [place for place, answer in enumerate(answers) if answer]
            if None in answers:
                self._undecided[where.text] = [place for place, answer in enumerate(answers) if answer is None]
            if not self.shared:
                self._values = None
        return places

    def undecided(self, where: Where) -> Sequence[int]:
        """The places of the messages for which `where` has no result; they are not sent."""
        return self._undecided.get(where.text, ())

    def render(self, form: str) -> bytes:
        """All of it in `form`."""
        if not self.shared:
            return render(self.batch, form)
        if form not in self._rendered:
            self._rendered[form] = render(self.batch, form)
        return self._rendered[form]


def render(batch: Batch, form: str) -> bytes:
    """The bytes of `batch` in `form`."""
    return FORMATS[form].join(batch)


def _values(bodies: Sequence[bytes]) -> list[Any]:
    """The JSON value of each of `bodies`, every integer exact; _NO_JSON for what is none."""
    loads = parser_for(bodies)
    values: list[Any] = []
    for body in bodies:
        try:
            values.append(loads(body))
        except EvaluationError:
            values.append(_NO_JSON)
    return values
