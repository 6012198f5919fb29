"""librdkafka's errors as this project's. In: KafkaError. Out: QtoolsError, in one plain sentence."""

from __future__ import annotations

import re
from typing import Any

from qtools.errors import BrokerError, MessageRefused, NetworkError, PeerError, QtoolsError

# librdkafka's numbers (rdkafka.h); those from 0 on are Kafka's own (kafka.apache.org/protocol, "Error Codes").
MESSAGE_TIMED_OUT, TIMED_OUT, TRANSPORT, ALL_BROKERS_DOWN = -192, -185, -195, -187
AUTHENTICATION, SSL, RESOLVE, PARTITION_EOF, FATAL = -169, -181, -193, -191, -150
UNKNOWN_TOPIC, UNKNOWN_PARTITION, PURGED, PURGED_IN_FLIGHT = -188, -190, -152, -151
GROUP_ID_NOT_FOUND = 69
NO_OFFSET, MAX_POLL_EXCEEDED = -168, -147
TOO_LARGE, INVALID_TIMESTAMP = 10, 32
CORRUPT_MESSAGE = 2  # also a key that is missing
UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE = 3, 5
TOPIC_NOT_AUTHORIZED, GROUP_NOT_AUTHORIZED, CLUSTER_NOT_AUTHORIZED = 29, 30, 31
INCONSISTENT_GROUP_PROTOCOL = 23
# Leaders and coordinators that are being chosen or loaded: 5, 6, 14, 15, 16.
NOT_YET = frozenset({LEADER_NOT_AVAILABLE, 6, 14, 15, 16})
INVALID_RECORD, INVALID_TOPIC, TOPIC_EXISTS = 87, 17, 36
INVALID_DIFFERENT_RECORD = -138  # the message is valid, and another one of its batch is not


class TopicRefused(BrokerError):
    """The cluster at `address` refuses all messages of `topic`. number: Kafka's of the error."""

    def __init__(self, topic: str, number: int, sentence: str, address: str) -> None:
        PeerError.__init__(self, f"topic {topic}: {sentence}", address)
        self.topic, self.code, self.text, self.command = topic, _NAMES.get(number, f"E_{number}"), sentence, ""


OF_MESSAGE = frozenset({TOO_LARGE, INVALID_RECORD, INVALID_DIFFERENT_RECORD, CORRUPT_MESSAGE, INVALID_TIMESTAMP})
# With these a broker refuses a whole batch because of one message.
OF_BATCH = frozenset({INVALID_RECORD, INVALID_DIFFERENT_RECORD, INVALID_TIMESTAMP})
NO_SUCH_TOPIC = frozenset({UNKNOWN_TOPIC, UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_PARTITION})
OF_NETWORK = frozenset(
    {MESSAGE_TIMED_OUT, TIMED_OUT, TRANSPORT, ALL_BROKERS_DOWN, RESOLVE, SSL, PURGED, PURGED_IN_FLIGHT}
)

_NO_TOPIC = "there is no such topic on the cluster"
_SENTENCES = {
    UNKNOWN_TOPIC: _NO_TOPIC,
    UNKNOWN_TOPIC_OR_PARTITION: _NO_TOPIC,
    UNKNOWN_PARTITION: "there is no such partition",
    LEADER_NOT_AVAILABLE: "a partition has no leader",
    MESSAGE_TIMED_OUT: "no broker has confirmed the message in time",
    TOPIC_NOT_AUTHORIZED: "this user may not use the topic",
    GROUP_NOT_AUTHORIZED: "this user may not use the consumer group",
    CLUSTER_NOT_AUTHORIZED: "this user may not do that on the cluster",
    INCONSISTENT_GROUP_PROTOCOL: "the consumer group has members of other programs, which do not share partitions as"
    " qtools does (cooperative-sticky): use another channel, or wait until they have left",
    INVALID_TOPIC: "Kafka does not accept this name of a topic",
    TOO_LARGE: "the message is larger than the topic accepts",
    INVALID_TIMESTAMP: "the topic does not accept the message's time",
    INVALID_RECORD: "the topic does not accept the message (a compacted topic needs a key)",
    INVALID_DIFFERENT_RECORD: "the topic does not accept another message of its batch",
}
_NAMES = {
    UNKNOWN_TOPIC: "UNKNOWN_TOPIC", UNKNOWN_TOPIC_OR_PARTITION: "UNKNOWN_TOPIC", INVALID_TOPIC: "INVALID_TOPIC",
    TOPIC_NOT_AUTHORIZED: "TOPIC_NOT_AUTHORIZED", GROUP_NOT_AUTHORIZED: "GROUP_NOT_AUTHORIZED",
}  # fmt: skip
CLOSED = "it closed the connection at once: it may want TLS (kafkas://), or does not speak Kafka's protocol"
CLOSED_WITH_TLS = (
    "it closed the connection at once: it may want a user and a password, or does not speak Kafka's protocol"
)
LOGIN_MISSING = (
    "it asks for a user and a password (SASL): give QTOOLS_KAFKA_USER and QTOOLS_KAFKA_PASSWORD, or user and"
    " password_file in a profile"
)
CERTIFICATE_MISSING = "it asks for a client certificate: give --tls-cert and --tls-key"
# A TLS server says that it accepts no client without a certificate, or not this one (RFC 8446, 6.2).
_CERTIFICATE_ALERT = re.compile(
    r"alert (?:certificate required|unknown ca|(?:bad|unsupported) certificate|certificate (?:unknown|expired|revoked))"
)
_CLOSED = ("disconnected", "connection reset", "broken pipe", "unexpected eof", "transport error")
_MECHANISM = re.compile(r"SASL (\S+) mechanism handshake failed: .*supported mechanisms:? ?(.*)$")
_FACTS = re.compile(r"\s*\(after \d+ms in state .*$")
_BROKER = re.compile(r"^(?:[a-z_]+://)?(\S+?:\d+)/(?:bootstrap|\d+): ")


def fault_of_text(text: str) -> str:
    """Why `text` cannot be given to librdkafka, which takes C strings of UTF-8, as a clause for users; "" if it can."""
    if "\0" in text:
        return "has a NUL byte, which Kafka's client library does not accept"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


def sentence_of(error: Any) -> str:
    """What `error` says, without librdkafka's own wrapping."""
    if (sentence := _SENTENCES.get(error.code())) is not None:
        return sentence
    return plain(error.str())


def plain(text: str) -> str:
    """One of librdkafka's reasons in one line: without its states and counts, and with a hint where it is known."""
    text = _FACTS.sub("", _BROKER.sub("", " ".join(text.split())))
    text = re.sub(r"^Connect to ipv[46]#(\S+) failed: ", "", text).rstrip(": ")
    if "Invalid response size" in text:
        return "what listens there does not speak Kafka's protocol; it may be an HTTP port"
    if "wrong version number" in text or "connecting to a PLAINTEXT broker listener" in text:
        return "it does not speak TLS: use kafka:// instead of kafkas://"
    if found := _MECHANISM.search(text):
        mechanism, offered = found.groups()
        if "not valid in current SASL state" in text:
            return "it asks for no user and no password (SASL): leave them out, or use the port that asks for them"
        return f"it does not offer {mechanism}, but {offered or 'no other mechanism'}: give it as sasl_mechanism"
    if "connecting to a SSL listener" in text:
        return CLOSED
    if "tls_retry_write_records" in text:  # the connection was closed while the first request was sent
        return CLOSED_WITH_TLS
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def is_of_certificate(text: str) -> bool:
    """Whether the server says with `text`, one of librdkafka's reasons, that the client's certificate is wrong, or
    missing."""
    return _CERTIFICATE_ALERT.search(text) is not None


def is_closed_connection(text: str) -> bool:
    """Whether `text`, as `plain` returns it, only says that the connection was closed: which of these sentences comes
    depends on when that was noticed."""
    lower = text.lower()
    return text in (CLOSED, CLOSED_WITH_TLS) or any(
        each in lower
        for each in ("disconnected", "connection reset", "broken pipe", "unexpected eof", "transport error")
    )


def error_of_topic(topic: str, error: Any, where: str) -> QtoolsError:
    """The error for a message to `topic` that the cluster at `where` did not take."""
    code = error.code()
    if code in OF_MESSAGE:
        return MessageRefused(sentence_of(error), is_too_large=code == TOO_LARGE)
    if code in OF_NETWORK:
        return NetworkError(where, sentence_of(error))
    return error_of_code(topic, code, where, sentence_of(error))


def error_of_code(topic: str, code: int, where: str, sentence: str = "") -> TopicRefused:
    """The error for a topic that the cluster at `where` refuses."""
    return TopicRefused(topic, code, sentence or _SENTENCES[code], where)
