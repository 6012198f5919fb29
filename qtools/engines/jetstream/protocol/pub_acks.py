"""The server's answers to publishes. In: messages of the inbox for answers. Out: which publishes are safe.

{"stream":"EVENTS","seq":7}     {"stream":"EVENTS","seq":7,"duplicate": true}
{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"EVENTS","seq":0}
a message with the status 503 and no body: no stream has the subject
"""

from __future__ import annotations

import json
from typing import NamedTuple

from qtools.engines.jetstream.protocol.headers import status_of
from qtools.engines.jetstream.protocol.server_reader import NatsMessages
from qtools.errors import ProtocolError

NO_RESPONDERS = 503


class PubRefusal(NamedTuple):
    """Why a publish was refused. code: as of HTTP. err_code: of JetStream; 0 if no stream has the subject."""

    code: int
    err_code: int
    text: str


class PubAcks(NamedTuple):
    """numbers: of all answered publishes, in the order of the answers. refused: those that were refused, by number.
    duplicates: how many the server had already, by their Nats-Msg-Id."""

    numbers: list[int]
    refused: dict[int, PubRefusal]
    duplicates: int = 0


def read_pub_acks(answers: NatsMessages, inbox: bytes) -> PubAcks:
    """`answers` came to subjects that are `inbox` and a number. ProtocolError if they are no answers of a stream."""
    start = len(inbox)
    try:
        numbers = [int(subject[start:]) for subject in answers.subjects]
    except ValueError:
        raise ProtocolError(f"an answer came to an unknown subject: {answers.subjects[0][:100]!r}") from None
    bodies = answers.bodies
    together = b"".join(bodies)
    is_plain = answers.headers is None and b'"error"' not in together and b'"duplicate"' not in together
    if is_plain and together.count(b'{"stream":') == len(bodies) == together.count(b'"seq":'):
        return PubAcks(numbers, {})  # nearly always: nothing is parsed
    refused: dict[int, PubRefusal] = {}
    duplicates = 0
    for place, (number, body) in enumerate(zip(numbers, bodies, strict=True)):
        block = answers.headers[place] if answers.headers is not None else b""
        if block and (status := status_of(block)).code:
            refused[number] = PubRefusal(status.code, 0, status.text)
            continue
        found = _parsed(body)
        if found is None:
            refused[number] = PubRefusal(0, 0, "what answered is no stream of JetStream")
        elif isinstance(error := found.get("error"), dict):
            refused[number] = _refusal(error)
        else:
            duplicates += found.get("duplicate") is True
    return PubAcks(numbers, refused, duplicates)


def _parsed(body: bytes) -> dict[str, object] | None:
    """The answer of a stream; None for other bytes."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and ("error" in found or "seq" in found) else None


def _refusal(error: dict[str, object]) -> PubRefusal:
    code, err_code = error.get("code"), error.get("err_code")
    return PubRefusal(
        code if isinstance(code, int) else 0,
        err_code if isinstance(err_code, int) else 0,
        str(error.get("description", "")),
    )
