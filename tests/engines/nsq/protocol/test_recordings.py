"""What clients said to nsqd 1.3.0 and what it answered, as golden bytes for both readers and both encoders."""

from __future__ import annotations

import json
from itertools import accumulate

import pytest

from qtools.engines.nsq.protocol.client_commands import Identify, Publish, RefusedCommand
from qtools.engines.nsq.protocol.command_reader import CommandLimits, CommandReader
from qtools.engines.nsq.protocol.commands import MAGIC_V2
from qtools.engines.nsq.protocol.frames import (
    MESSAGE,
    Frame,
    FrameReader,
    decode_frame,
    encode_frame,
    encode_message,
)
from qtools.engines.nsq.protocol.identify import IdentifyResponse
from qtools.engines.nsq.protocol.negotiate import NotGranted, ServerLimits, negotiate
from qtools.message import Message

from .recordings import TALKS, TIMESTAMP, Step, Talk, frame, ident
from .streams import bytewise, cut, decode, encoded, feed, halves, understand

# The one talk that never gets as far as a command.
NO_MAGIC = "magic: unknown protocol is refused"
SPOKEN = [talk for talk in TALKS if talk.name != NO_MAGIC]

# What nsqd understands though no encoder here would say it so, and how that would be said.
NOT_CANONICAL = {
    "carriage return before newline is accepted": (b"SUB t28 c\nRDY 1\nNOP\n", "a CR before the LF is dropped"),
    "rdy without a count means one": (b"SUB t68 c\nRDY 1\n", "RDY without a count is RDY 1"),
}

# Refused for its form: the reader alone must say what nsqd said.
BAD_FORM = {
    "dpub: delay too long",
    "dpub: negative delay",
    "dpub: delay not a number",
    "dpub: no delay",
    "req: delay not a number",
    "req: no delay",
    "identify: empty body",
    "identify: negative body size",
    "unknown command",
    "unknown command with parameters",
    "empty line is an unknown command",
    "lower case command",
    "pub: empty body",
    "pub: negative size",
    "pub: too big",
    "pub: no topic",
    "pub: bad topic characters",
    "pub: topic of 65 characters",
    "pub: other suffix",
    "mpub: no messages",
    "mpub: an empty message",
    "mpub: a message too big",
    "mpub: body too big",
    "mpub: zero body size",
    "mpub: count too large",
    "mpub: bad topic",
    "mpub: nothing is queued when one message is refused (p)",
    "sub: too few parameters",
    "sub: bad topic",
    "sub: bad channel",
    "rdy: not a number",
    "rdy: negative",
    "fin: id of the wrong length",
    "fin: no id",
}

# Refused for what an IDENTIFY asks for: negotiate() says it.
BAD_WISH = {
    "identify: heartbeat too short",
    "identify: heartbeat too long",
    "identify: msg_timeout too long",
    "identify: output buffer too large",
    "identify: sample rate out of range",
    "identify: negative sample rate",
    "identify: bad JSON",
    "identify: wrong JSON type",
}

# Well formed, and refused for when it was said: the broker's to say, which knows the state.
BAD_MOMENT = {
    "sub with heartbeats disabled",
    "fin after the timeout fails",
    "identify after SUB",
    "sub twice",
    "rdy before sub",
    "rdy: above the limit",
    "fin twice",
    "fin: unknown id leaves the connection open",
    "fin before sub",
    "fin: another connection's message (b)",
    "req: unknown id",
    "touch: unknown id",
    "a dropped connection returns its messages (b)",
    "cls before sub",
    "auth when auth is off",
}


def said(talk: Talk) -> bytes:
    """What a client sent behind the magic."""
    assert talk.sent.startswith(MAGIC_V2)
    return talk.sent[len(MAGIC_V2) :]


every_talk = pytest.mark.parametrize("talk", SPOKEN, ids=str)


def test_every_recorded_refusal_is_of_one_of_the_three_kinds() -> None:
    refused = {talk.name for talk in SPOKEN if talk.errors}
    assert refused == BAD_FORM | BAD_WISH | BAD_MOMENT
    assert len(refused) == len(BAD_FORM) + len(BAD_WISH) + len(BAD_MOMENT)
    assert len(TALKS) == 131


# ── what clients said ──


@every_talk
def test_what_a_client_said_is_understood_and_said_again_in_the_same_bytes(talk: Talk) -> None:
    commands = understand([said(talk)])
    if talk.name in BAD_FORM:
        last = commands.pop()
        assert isinstance(last, RefusedCommand)
        assert f"{last.code} {last.text}" == talk.errors[-1]
        assert said(talk).startswith(b"".join(map(encoded, commands)))
        return
    assert not any(isinstance(command, RefusedCommand) for command in commands)
    canonical = NOT_CANONICAL[talk.name][0] if talk.name in NOT_CANONICAL else said(talk)
    assert b"".join(map(encoded, commands)) == canonical


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_what_is_listed_as_not_canonical_is_not(name: str) -> None:
    (talk,) = (talk for talk in SPOKEN if talk.name == name)
    assert said(talk) != NOT_CANONICAL[name][0]


@every_talk
def test_what_a_client_said_means_the_same_however_it_is_cut(talk: Talk) -> None:
    whole = understand([said(talk)])
    assert understand(bytewise(said(talk))) == whole
    ends = accumulate((len(step.sent) for step in talk.steps), initial=-len(MAGIC_V2))
    assert understand(cut(said(talk), ends)) == whole
    for two in halves(said(talk)):
        assert understand(two) == whole


@every_talk
def test_half_a_command_behind_it_changes_nothing_and_is_finished_later(talk: Talk) -> None:
    whole = understand([said(talk)])
    half, other_half = b"PUB later\n\x00\x00\x00\x05he", b"llo"
    assert understand([said(talk) + half]) == whole
    again = understand([said(talk) + half, other_half])
    if talk.name in BAD_FORM:
        assert again == whole  # a reader that refused says nothing more
    else:
        assert again == [*whole, Publish("PUB", "later", [b"hello"])]


def test_extra_parameters_are_ignored_as_nsqd_ignores_them() -> None:
    assert understand([b"PUB bad topic\n\x00\x00\x00\x01x"]) == [Publish("PUB", "bad", [b"x"])]


# ── what nsqd answered ──


def expected(talk: Talk) -> tuple[list[Message], list[Frame]]:
    messages, others = [], []
    for step in talk.steps:
        for answer, raw in zip(step.answers, step.raw, strict=True):
            if answer["type"] == "message":
                body = answer["body"].encode("latin-1")
                messages.append(Message(TIMESTAMP, answer["attempts"], raw[18:34], body))
            else:
                others.append(Frame(["response", "error"].index(answer["type"]), raw[8:]))
    return messages, others


answered = pytest.mark.parametrize("talk", [talk for talk in TALKS if talk.raw], ids=str)


@answered
def test_what_nsqd_answered_is_encoded_to_the_same_bytes(talk: Talk) -> None:
    messages, others = expected(talk)
    for step in talk.steps:
        for answer, raw in zip(step.answers, step.raw, strict=True):
            if answer["type"] == "message":
                message = messages.pop(0)
                assert encode_message(message) == raw
                assert encode_frame(MESSAGE, raw[8:]) == raw
            else:
                other = others.pop(0)
                assert encode_frame(other.kind, other.data) == raw
    assert not messages
    assert not others


@answered
def test_what_nsqd_answered_is_decoded(talk: Talk) -> None:
    messages, others = expected(talk)
    stream = b"".join(talk.raw)
    assert decode([stream]) == (messages, others, None)
    assert decode(talk.raw) == (messages, others, None)


@answered
def test_what_nsqd_answered_is_decoded_one_frame_at_a_time(talk: Talk) -> None:
    messages, others = expected(talk)
    reader = FrameReader()
    found = [reader.read_one(b"".join(talk.raw))]
    while found[-1] is not None:
        found.append(reader.read_one())
    told = [decode_frame(one) for one in found if one is not None]
    assert [one for one in told if isinstance(one, Message)] == messages
    assert [one for one in told if isinstance(one, Frame)] == others


@answered
def test_what_nsqd_answered_means_the_same_however_it_is_cut(talk: Talk) -> None:
    stream = b"".join(talk.raw)
    whole = (*expected(talk), None)
    assert decode(bytewise(stream)) == whole
    for two in halves(stream):
        assert decode(two) == whole


@answered
def test_half_a_frame_behind_it_changes_nothing_and_is_finished_later(talk: Talk) -> None:
    messages, others = expected(talk)
    stream = b"".join(talk.raw)
    late = frame(2, TIMESTAMP.to_bytes(8, "big") + b"\x00\x07" + ident(99) + b"late")
    for place in range(1, len(late)):
        reader = FrameReader()
        assert decode([stream + late[:place]], reader) == (messages, others, None)
        assert decode([late[place:]], reader) == ([Message(TIMESTAMP, 7, ident(99), b"late")], [], None)


def test_all_recorded_frames_in_one_stream_are_decoded_in_order() -> None:
    stream = b"".join(raw for talk in TALKS for raw in talk.raw)
    messages = [message for talk in TALKS for message in expected(talk)[0]]
    others = [other for talk in TALKS for other in expected(talk)[1]]
    assert decode([stream]) == (messages, others, None)
    for size in (7, 31, 64, 1000):
        assert decode(cut(stream, range(0, len(stream), size))) == (messages, others, None)


# ── IDENTIFY ──


def identifications() -> list[tuple[str, Step]]:
    found = []
    for talk in SPOKEN:
        if talk.name in BAD_FORM:
            continue
        for place, step in enumerate(talk.steps):
            if b"IDENTIFY\n" in step.sent:
                found.append((f"{talk.name}, step {place}", step))
    return found


@pytest.mark.parametrize("step", [step for _, step in identifications()], ids=[name for name, _ in identifications()])
def test_an_identify_is_negotiated_as_nsqd_negotiates_it(step: Step) -> None:
    (command,) = feed(CommandReader(CommandLimits()), step.sent.removeprefix(MAGIC_V2))
    assert isinstance(command, Identify)
    (answer,) = step.answers
    if answer["type"] == "error" and not answer["data"].startswith("E_INVALID cannot IDENTIFY"):
        with pytest.raises(NotGranted) as caught:
            negotiate(command.body, ServerLimits())
        refused = caught.value
        assert f"{refused.code} {refused.text}" == answer["data"]
        return
    client = negotiate(command.body, ServerLimits())
    assert (client.client_id, client.hostname) == ("c", "h")
    if answer.get("data") == "OK":
        assert not client.negotiates
    if "json" in answer:
        assert client.negotiates
        told = json.loads(client.agreed.encode())
        assert told == answer["json"]
        assert step.same
        assert {key: told[key] for key in step.same} == {key: answer["json"][key] for key in step.same}
        assert IdentifyResponse.decode(json.dumps(answer["json"]).encode()) == client.agreed
