"""What it means that a publish is refused. In: the server's answer. Out: the error of the message."""

from __future__ import annotations

from qtools.engines.jetstream.api import NOT_READY
from qtools.engines.jetstream.protocol.pub_acks import NO_RESPONDERS, PubRefusal
from qtools.errors import BrokerError, MessageRefused, QtoolsError, one_line

TOO_LARGE = 10054  # the stream's max_msg_size
TOO_MANY_REQUESTS = 10167
LIMITS = 10077  # max_msgs, max_bytes, max_msgs_per_subject of a stream that discards new messages
NO_RESOURCES = 10023  # the server's memory or disk, or the account's limits


class StreamRefused(BrokerError):
    """A stream does not store a message. err_code: of JetStream's API."""

    def __init__(self, topic: str, err_code: int, text: str) -> None:
        self.topic, self.err_code = topic, err_code
        super().__init__(str(err_code) if err_code else "", text)
        self.reason = f"{topic}: {one_line(text)}" + (f" (JetStream's error {err_code})" if err_code else "")


def is_no_stream(refusal: PubRefusal) -> bool:
    """Whether no server reads the subject: it has no stream, or the stream has no leader now."""
    return refusal.code == NO_RESPONDERS and not refusal.err_code


def is_for_now(refusal: PubRefusal) -> bool:
    """Whether the same message is stored a moment later."""
    return refusal.err_code in NOT_READY or refusal.err_code == TOO_MANY_REQUESTS


def error_of(topic: str, refusal: PubRefusal, size: int) -> QtoolsError:
    """The error of a message with `size` bytes."""
    if refusal.err_code == TOO_LARGE:
        return MessageRefused(f"it has {size:,} bytes, and the stream of {topic} accepts fewer (max_msg_size)")
    if refusal.err_code == LIMITS:
        return StreamRefused(
            topic, LIMITS, f"its stream is full ({refusal.text}): raise its limits, or let it discard old messages"
        )
    if refusal.err_code == NO_RESOURCES:
        return StreamRefused(topic, NO_RESOURCES, f"the server has no room for its stream ({refusal.text})")
    return StreamRefused(topic, refusal.err_code, refusal.text or f"refused with the status {refusal.code}")


class StreamMissing(BrokerError):
    """No stream stores `topic`. flag: the one that creates streams, or ""."""

    def __init__(self, topic: str, where: str, flag: str) -> None:
        super().__init__("", topic)
        advice = f"use {flag} default to create one" if flag else "create one"
        self.reason = f"{topic}: no stream on {where} stores this subject: {advice}"
