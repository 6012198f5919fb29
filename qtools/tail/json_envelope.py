"""--format json: envelopes whose body is JSON, where the message is JSON. In: batches. Out: a line for each message.

    {"topic":…,"id":…,"timestamp":…,"attempts":…,"source":…,"body":{"id":"m-1"}}

A body that is not JSON is a text, or "body_base64", as in an envelope (formats/envelope.py).
"""

from __future__ import annotations

import orjson

from qtools.attributes import TOMBSTONE, DecodedBody
from qtools.formats.envelope import encode_envelopes
from qtools.message import Batch


def encode_json(batch: Batch) -> list[bytes]:
    """A line for each message, with its newline. Numbers in a body keep all their digits."""
    lines = encode_envelopes(batch)
    for place, body in enumerate(batch.bodies):
        if body is TOMBSTONE:
            continue
        try:
            if isinstance(body, DecodedBody):
                value = body.value
            else:
                parsed = orjson.loads(body)
                # The bytes themselves keep numbers that a double would round; a newline would end the line.
                value = parsed if b"\n" in body or b"\r" in body else orjson.Fragment(body)
        except orjson.JSONDecodeError:
            continue
        fields = orjson.loads(lines[place])
        fields.pop("body_base64", None)
        fields["body"] = value
        lines[place] = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    return lines
