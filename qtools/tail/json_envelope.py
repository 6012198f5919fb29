"""--format json: envelopes whose body is JSON, where the message is JSON. In: batches. Out: a line for each message.

    {"topic":…,"id":…,"timestamp":…,"attempts":…,"source":…,"body":{"id":"m-1"}}

A body that is not JSON is a text, or "body_base64", as in an envelope (formats/envelope.py).
"""

from __future__ import annotations

import re

import orjson

from qtools.attributes import TOMBSTONE, DecodedBody
from qtools.errors import EvaluationError
from qtools.flow.json_values import encode
from qtools.formats.envelope import encode_envelopes
from qtools.message import Batch

# JSON has line breaks between its values only: a text has \n in their place.
_LINE_BREAK = re.compile(rb"[\r\n]+[ \t\r\n]*")


def encode_json(batch: Batch) -> list[bytes]:
    """A line for each message, with its newline. Numbers in a body keep all their digits."""
    lines = encode_envelopes(batch)
    for place, body in enumerate(batch.bodies):
        if body is TOMBSTONE:
            continue
        try:
            made = _json_of(body)
        except (orjson.JSONDecodeError, EvaluationError):
            continue
        fields = orjson.loads(lines[place])
        fields.pop("body_base64", None)
        fields["body"] = orjson.Fragment(made)
        lines[place] = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    return lines


def _json_of(body: bytes) -> bytes:
    """The JSON of `body`, without line breaks. JSONDecodeError, EvaluationError if it has none."""
    if isinstance(body, DecodedBody):
        return encode(body.value)
    orjson.loads(body)
    # The bytes themselves, as orjson would round long numbers, and refuses to write what is nested deeply.
    return _LINE_BREAK.sub(b"", body) if b"\n" in body or b"\r" in body else body
