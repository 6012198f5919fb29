"""Makes librdkafka's clients, and asks what a cluster is. In: settings. Out: confluent-kafka's objects, ClusterView.

All calls that wait run in a thread; a client belongs to the event loop or to one reading thread, never to both.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from qtools.engines.kafka.client_errors import (
    ALL_BROKERS_DOWN,
    AUTHENTICATION,
    CERTIFICATE_MISSING,
    CLOSED,
    CLOSED_WITH_TLS,
    FATAL,
    LOGIN_MISSING,
    NOT_YET,
    OF_NETWORK,
    TIMED_OUT,
    TRANSPORT,
    is_closed_connection,
    is_of_certificate,
    plain,
    sentence_of,
)
from qtools.engines.kafka.consume.waiting_partitions import Place
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import StartError, UsageError

log = logging.getLogger("qtools.kafka")

CONNECT_TIMEOUT = 10.0  # s
CALL_TIMEOUT = 10.0  # s for a question to the cluster
REFUSED_TIMEOUT = 2.0  # s
RETRY_DELAY = 0.1  # s
METADATA_TIMEOUT = 0.5  # s for a question whose answer may be missing
Result = TypeVar("Result")
DEFAULT_LARGEST = 1_048_588  # bytes of a batch: Kafka's default of message.max.bytes
_NO_ID = "A" * 22  # of a topic of an old broker: 16 bytes of 0
TOKEN_LIFETIME = 300.0  # s after which a token is asked for again


class ClusterView(NamedTuple):
    """What a cluster has. partitions: by topic, the numbers of its partitions; internal topics are left out."""

    cluster: str
    partitions: dict[str, list[int]]


class ErrorLog:
    """Keeps the last error that a client met, as the reason when it cannot connect. Logs when all brokers are lost, and
    when one is back. settings: of the cluster, to name it in the log."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._has_answered = False  # a broker, before
        self.last = ""
        self.is_permanent = False  # another try would end the same way
        self.is_down = False  # no broker is connected
        self.fatal = ""

    def clear(self) -> None:
        """A broker has answered: what was wrong before is no reason any more."""
        if self.is_down and self._has_answered:
            log.warning("%s is back", self.settings)
        self._has_answered = True
        self.last, self.is_permanent, self.is_down = "", False, False

    def __call__(self, error: Any) -> None:
        if error.code() == FATAL:
            self.fatal = sentence_of(error)
        if error.code() == ALL_BROKERS_DOWN:
            if self._has_answered and not self.is_down:
                log.warning("lost %s: %s; trying again", self.settings, self.last or "no broker is connected")
            self.is_down = True
            if not self.last and not self._has_answered:  # librdkafka reports no error for a connection that is closed
                self.last = CLOSED_WITH_TLS if self.settings.tls else CLOSED
            return  # the errors before it say why
        text = plain(error.str())
        if is_of_certificate(text):
            cert = self.settings.tls_cert
            text = f"it does not accept the client certificate {cert}: {text}" if cert else CERTIFICATE_MISSING
        if text != self.last:
            log.info("%s", text)
        if self.is_permanent:
            return  # what comes after a refused login follows from it
        self.last = text
        self.is_permanent = error.code() == AUTHENTICATION


def library() -> Any:
    """The module confluent_kafka; UsageError where it is not installed."""
    try:
        import confluent_kafka
    except ImportError as error:
        hint = "Kafka needs confluent-kafka, which the extra kafka brings: see qtools help install"
        raise UsageError(f"{hint} ({error})") from error
    return confluent_kafka


def make_producer(settings: KafkaSettings, errors: ErrorLog, properties: dict[str, Any]) -> Any:
    """A Producer; UsageError when a property is unknown."""
    return _make(library().Producer, settings, errors, properties)


def make_consumer(settings: KafkaSettings, errors: ErrorLog, properties: dict[str, Any]) -> Any:
    """A Consumer; UsageError when a property is unknown."""
    return _make(library().Consumer, settings, errors, properties)


def make_admin(settings: KafkaSettings, errors: ErrorLog | None = None) -> Any:
    """An AdminClient."""
    library()
    from confluent_kafka.admin import AdminClient

    return _make(AdminClient, settings, errors or ErrorLog(settings), {})


class TopicIds:
    """The ids of topics: a topic that is deleted and created again gets another one. Asked in any thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin: Any = None
        self._lock = threading.Lock()

    def of(self, topic: str) -> str:
        """The id of `topic` as text; "" if the cluster has none, or does not tell. OSError when it does not answer."""
        from confluent_kafka import KafkaException, TopicCollection

        with self._lock:
            if self._admin is None:
                self._admin = make_admin(self._settings)
        try:
            asked = self._admin.describe_topics(TopicCollection([topic]), request_timeout=CALL_TIMEOUT)
            found = str(asked[topic].result().topic_id)
        except KafkaException as error:
            if error.args[0].code() in OF_NETWORK:
                reason = f"the id of topic {topic} is not known yet: {sentence_of(error.args[0])}"
                raise OSError(errno.EIO, reason, str(self._settings)) from error
            log.info("the id of topic %s is not known: %s", topic, sentence_of(error.args[0]))
            return ""
        return "" if found == _NO_ID else found


def _make(kind: Any, settings: KafkaSettings, errors: ErrorLog, properties: dict[str, Any]) -> Any:
    configuration = settings.configuration() | properties | {"error_cb": errors}
    if settings.mechanism == "OAUTHBEARER":
        try:
            first: list[tuple[str, float]] = [oauth_token(settings)]
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(f"{settings}: there is no token: {_reason_of(error)}") from error
        configuration["oauth_cb"] = lambda _: first.pop() if first else oauth_token(settings)
    try:
        return kind(configuration, logger=_library_log())
    except library().KafkaException as error:
        raise UsageError(f"{settings}: {_unwrapped(error)}") from error


def _unwrapped(error: Exception) -> str:
    inner = error.args[0] if error.args else error
    return plain(inner.str()) if hasattr(inner, "str") else str(error)


def _library_log() -> logging.Logger:
    """librdkafka's own log, which is shown with -v only."""
    made = logging.getLogger("qtools.kafka.librdkafka")
    if log.getEffectiveLevel() > logging.DEBUG:
        made.setLevel(logging.CRITICAL + 1)
    return made


def _reason_of(error: Exception) -> str:
    """Why a token could not be had: the last line that its command has printed to stderr, or the system's reason."""
    lines = (getattr(error, "stderr", None) or "").strip().splitlines()
    return lines[-1] if lines else str(error)


def oauth_token(settings: KafkaSettings) -> tuple[str, float]:
    """The token of OAUTHBEARER, and until when it is used (s since 1970): until a JWT expires, at most for
    TOKEN_LIFETIME. OSError, SubprocessError."""
    if settings.token_file:
        token = Path(settings.token_file).read_text().strip()
    else:
        done = subprocess.run(  # the user's own command, as a shell takes it
            settings.token_command, shell=True, check=True, capture_output=True, text=True, timeout=60
        )
        token = done.stdout.strip()
    return token, min(time.time() + TOKEN_LIFETIME, _expiry(token))


def _expiry(token: str) -> float:
    """When a JWT expires, s since 1970; infinity for any other token."""
    try:
        payload = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return float("inf")


def ask(function: Callable[[], Result]) -> Result:
    """The result of `function`, a question to the cluster; asked again while a leader or coordinator is chosen."""
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while True:
        try:
            return function()
        except library().KafkaException as error:
            if error.args[0].code() not in NOT_YET or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_DELAY)


def list_offsets(
    admin: Any, places: Sequence[Place], spec: Any, *, committed_only: bool
) -> Iterator[tuple[Place, Callable[[], int]]]:
    """For each of `places`, a function that returns its offset for `spec` (OffsetSpec), or raises KafkaException, as
    for a partition without a leader. One request to each broker, in the caller's thread.

    committed_only: the newest offset is that of the oldest open transaction, where a consumer that reads only what is
    committed ends.
    """
    from confluent_kafka import IsolationLevel, TopicPartition

    if not places:
        return
    level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
    asked = dict.fromkeys((TopicPartition(*place) for place in places), spec)
    answers = admin.list_offsets(asked, isolation_level=level, request_timeout=CALL_TIMEOUT)
    for place, answer in answers.items():
        yield (place.topic, place.partition), partial(_offset_in, answer)


def _offset_in(answer: Any) -> int:
    return int(answer.result().offset)


async def look_at_cluster(client: Any, errors: ErrorLog, where: str, poll: Callable[[], object]) -> ClusterView:
    """What the cluster has; StartError with the reason when no broker answers.

    poll: lets the client call back what it met meanwhile.
    """
    given_up = threading.Event()
    try:
        found = await asyncio.to_thread(_list_topics, client, errors, poll, given_up)
    except asyncio.CancelledError:
        given_up.set()  # a thread cannot be cancelled, and the program waits for it
        raise
    except library().KafkaException as error:
        reason = await _reason_of_no_answer(errors)
        if not reason and error.args[0].code() in (TRANSPORT, TIMED_OUT):
            reason = f"no answer within {CONNECT_TIMEOUT:.0f} s: it is busy, or does not speak Kafka's protocol"
        raise StartError(f"{where}: {reason or sentence_of(error.args[0])}") from error
    errors.clear()
    topics = {name: sorted(topic.partitions) for name, topic in found.topics.items() if topic.error is None}
    return ClusterView(found.cluster_id or "", topics)


async def _reason_of_no_answer(errors: ErrorLog) -> str:
    """Why no broker answers; "" if that is not known.

    Which error librdkafka reports last depends on when a connection was closed. So the address is asked what speaks
    there, unless a login was refused.
    """
    if errors.is_permanent:
        return errors.last
    from qtools.engines.peer_protocol import PeerProtocol, protocol_at

    settings = errors.settings
    found = await protocol_at(settings.hosts[0])
    if advice := found.advice("Kafka", settings.hosts[0], is_tls=settings.tls):
        return advice
    if is_closed_connection(errors.last):
        if found.wants_certificate and not settings.tls_cert:
            return CERTIFICATE_MISSING
        if found == PeerProtocol("Kafka", settings.tls) and not settings.mechanism:
            return LOGIN_MISSING
    return errors.last


async def largest_batch(admin: Any, topic: str) -> int:
    """The bytes that a batch for `topic` may have; Kafka's default where this user may not ask."""
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        answers = admin.describe_configs([resource], request_timeout=CONNECT_TIMEOUT)
        found = await asyncio.to_thread(answers[resource].result)
        return int(found["max.message.bytes"].value)
    except (library().KafkaException, KeyError, ValueError):
        return DEFAULT_LARGEST


async def hasten_producer_id(producer: Any, topic: str) -> None:
    """Return when the id of an idempotent `producer`, without which it sends nothing, was asked for.

    librdkafka asks for it with each answer to a question for metadata, if a broker is connected then, and else after
    500 ms. The first answer is of a bootstrap address, and the broker itself is connected after that: ask twice.
    """
    with contextlib.suppress(library().KafkaException):  # messages wait for it then, and their reports tell
        for _ in range(2):
            await asyncio.to_thread(producer.list_topics, topic, METADATA_TIMEOUT)


def _list_topics(client: Any, errors: ErrorLog, poll: Callable[[], object], given_up: threading.Event) -> Any:
    """Metadata of the cluster, asked again within CONNECT_TIMEOUT; within REFUSED_TIMEOUT once it is known what is
    wrong, as a refused connection and a peer that is no Kafka do not get better by waiting."""
    begun = time.monotonic()
    while True:
        try:
            return client.list_topics(timeout=0.5)
        except library().KafkaException:
            poll()
            waited = time.monotonic() - begun
            most = REFUSED_TIMEOUT if errors.last else CONNECT_TIMEOUT
            if errors.is_permanent or given_up.is_set() or waited > most:
                raise
