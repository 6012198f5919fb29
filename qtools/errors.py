"""Every error that qtools raises, in one tree. Each line says whose fault it is, and what happens next.

    QtoolsError
    ├── UsageError            the user's: the command ends at once, with exit status 2
    │   ├── NameInvalid         the name of a topic or channel is not allowed
    │   ├── AddressInvalid      an address is malformed
    │   └── ExpressionError     a filter expression does not compile
    ├── StartError            the environment's: the command could not start, exit status 3
    │   └── TopicMissing        a topic does not exist, and its engine creates none by itself
    ├── CommandUnusable       the user's: a program that is to be run for messages cannot be run, exit status 126 or 127
    ├── InputError            the input's: its bytes are not of the format that was given, exit status 1
    ├── EvaluationError       one message's: an expression has no result for it
    ├── DeadLettersRefused    the broker's operator's: the topic for dead letters does not take them, exit status 1
    ├── SourcePaused          the broker's operator's: a paused channel delivers nothing, exit status 1
    ├── SourceDeleted         the broker's operator's: a topic or channel was deleted unread, exit status 1
    ├── PeerError             the peer's: the connection is closed
    │   ├── ProtocolError       its bytes are not NSQ's protocol
    │   ├── BrokerError         it refused a command or a topic
    │   │   ├── AuthError         … because authorization is missing or not sufficient
    │   │   └── SizeError         … because a command was too large
    │   └── UpgradeRefused      it did not grant the TLS or the compression that was requested
    ├── NetworkError          the network's: the operation is tried again
    │   ├── ConnectFailed       a connection could not be opened
    │   └── ConnectionLost      an open connection ended
    ├── StoreError            an object store's, or its network's: tried again unless it is permanent
    │   └── ObjectDiffers       an object of that name exists with other contents
    └── SinkError             the sink's: the messages that it did not take are requeued
        ├── SinkClosed          the reader has closed the pipe: the run ends without an error message
        ├── MessageRefused      the sink can never take this message
        │   └── RouteFailed         … because it cannot be routed to a topic
        ├── Postponed           the sink cannot take this message now: it is requeued with a delay
        └── PartialFailure      some messages of a batch failed; the error names them

An error carries fields and composes its own sentence: it names the thing, what was wrong, what to do.
This module imports nothing.
"""

from __future__ import annotations


class QtoolsError(Exception):
    """The root of the tree. `str()` of each error is one line that can be shown to a user."""

    exit_status = 1


def one_line(text: str, most: int = 300) -> str:
    """`text` from a peer or a file, as it may be shown on a terminal: one line of printable characters, at most `most`
    of them."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[: most * 2]).split())[:most]


# ── the user's ──────────────────────────────────────────────────────────────────────────────────


class UsageError(QtoolsError):
    """The command line or a configuration is wrong."""

    exit_status = 2


class NameInvalid(UsageError):
    """A topic or channel name that is not allowed; names.py has the rules, which are NSQ's, for every engine. `kind` is
    "topic" or "channel"."""

    def __init__(self, kind: str, name: str, reason: str) -> None:
        self.kind, self.name, self.reason = kind, name, reason
        super().__init__(f"{kind} name {name!r} {reason}")


class AddressInvalid(UsageError):
    """A malformed address. `text` is the address without user name and password; `reason` says what is wrong."""

    def __init__(self, text: str, reason: str) -> None:
        self.text, self.reason = without_userinfo(text), reason
        super().__init__(f"address {self.text!r} {reason}")


def without_userinfo(text: str) -> str:
    """Remove the user name and the password from `text`, an address that may be malformed, so that it can be shown."""
    if text.lower().startswith(("unix:/", "nsq+unix:/")) and "://" not in text:
        return text  # in a path an @ has no meaning
    start, separator, rest = text.partition("://")
    # A password that the user did not encode may contain any character: everything up to the last @ is removed.
    return f"{start}{separator}{rest.rpartition('@')[2]}" if separator else text.rpartition("@")[2]


class ExpressionError(UsageError):
    """A filter expression that does not compile. `column` counts characters from 1; `why` says what is wrong there."""

    def __init__(self, text: str, column: int, why: str) -> None:
        self.text, self.column, self.why = text, column, why
        printable = "".join(char if char.isprintable() else " " for char in text)
        start = max(
            0, min(column - 31, len(printable) - 60)
        )  # of a long expression, the part round the column is shown
        window = ("…" if start else "") + printable[start : start + 60] + ("…" if start + 60 < len(printable) else "")
        super().__init__(f"expression '{window}', column {column}: {why}")


# ── the environment's, the input's ──────────────────────────────────────────────────────────────


class StartError(QtoolsError):
    """The program cannot start, as something that it needs is missing or in use: a broker, a file, a lock."""

    exit_status = 3


class TopicMissing(StartError):
    """A topic does not exist, and its engine creates none by itself."""


class CommandUnusable(QtoolsError):
    """The program `name` cannot be run. exit_status: 127 if it does not exist, 126 if it is not executable, as env,
    nice and timeout have it."""

    def __init__(self, name: str, reason: str, exit_status: int) -> None:
        self.name, self.reason, self.exit_status = name, reason, exit_status
        super().__init__(f"cannot run {name}: {reason}")


class InputError(QtoolsError):
    """The input is not of the format that was given. `offset`: where, in bytes from the input's start; None if unknown.
    `too_long`: whether the reason is a message over the limit of the reader's buffer."""

    def __init__(self, message: str, offset: int | None = None, *, too_long: bool = False) -> None:
        self.offset, self.too_long = offset, too_long
        super().__init__(message)


class EvaluationError(QtoolsError):
    """An expression has no result for this value, as `1 + "a"` has none. jq fails too, with a similar message."""


class DeadLettersRefused(QtoolsError):
    """`count` messages cannot be delivered, the first one because of `why`, and the broker refuses their dead letters
    with `refused`. instead: what else the command can do with such messages."""

    def __init__(self, why: QtoolsError, count: int, refused: QtoolsError, instead: str = "") -> None:
        self.why, self.count, self.refused, self.instead = why, count, refused, instead
        messages = "a message" if count == 1 else f"{count:,} messages"
        first = "" if count == 1 else "; the first one"
        super().__init__(
            f"{messages} cannot be delivered{first}: {why}; {'its' if count == 1 else 'their'} dead"
            f" letter{'' if count == 1 else 's'} cannot be published either: {refused}"
            f" (--dead-letter-topic names another topic{instead})"
        )


class SourcePaused(QtoolsError):
    """`source` (TOPIC/CHANNEL), or its topic, is paused on `nsqd` (an address), with `left` messages in it."""

    def __init__(self, source: str, nsqd: str, left: int) -> None:
        self.source, self.nsqd, self.left = source, nsqd, left
        count = f"{left:,} message{'' if left == 1 else 's'}"
        super().__init__(f"{source} is paused on {nsqd}, and keeps {count} back")


class SourceDeleted(QtoolsError):
    """The topic or channel `name` was deleted on `nsqd` during a run that was to read all of it. `kind` is "topic" or
    "channel"."""

    def __init__(self, kind: str, name: str, nsqd: str) -> None:
        self.kind, self.name, self.nsqd = kind, name, nsqd
        super().__init__(f"the {kind} {name} was deleted on {nsqd} during the run; what it still held was not read")


# ── the peer's ──────────────────────────────────────────────────────────────────────────────────


class PeerError(QtoolsError):
    """The peer did something after which the connection has to be closed; `reason` says what.

    `address`: the peer's, with which the text begins. The code that opened the connection sets it, as a parser does not
    know the address.
    """

    def __init__(self, reason: str, address: str = "") -> None:
        self.reason, self.address = reason, address
        super().__init__(reason)

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}" if self.address else self.reason


class ProtocolError(PeerError):
    """The peer sent bytes that are not NSQ's protocol. `looks_like`: the protocol that they resemble ("HTTP"), or
    ""."""

    def __init__(self, message: str, looks_like: str = "") -> None:
        self.looks_like = looks_like
        super().__init__(message)


class BrokerError(PeerError):
    """The broker refused something. `code` is the engine's: that of NSQ's error frame (`E_BAD_TOPIC`), or of Kafka's
    client library (`TOPIC_AUTHORIZATION_FAILED`). `text` is the broker's explanation, for people.

    `command`: the command that was refused, or "" if that is not known.
    """

    def __init__(self, code: str, text: str = "", command: str = "") -> None:
        self.code, self.text, self.command = code, text, command
        # The peer's text may contain control characters, which must not reach a terminal.
        shown = one_line(f"{code} {text}", 100_000)
        super().__init__(f"the broker refused {command}: {shown}" if command else f"the broker says: {shown}")


class AuthError(BrokerError):
    """AUTH is required, was refused, or does not allow this topic or channel."""


class SizeError(BrokerError):
    """A message or a command's body is over the broker's limit; the broker queued no message of that command."""


class UpgradeRefused(PeerError):
    """The broker did not grant `what` ("TLS", "snappy", "deflate"), which the user requested; the connection is not
    used without it."""

    def __init__(self, what: str, advice: str) -> None:
        self.what = what
        super().__init__(f"the broker does not offer {what}, which was asked for: {advice}")


# ── the network's ───────────────────────────────────────────────────────────────────────────────


class NetworkError(QtoolsError):
    """The network failed between this process and `address`; the operation is tried again. `reason` says how."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(address, reason)

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}"


class ConnectFailed(NetworkError):
    """A connection could not be opened. `permanent`: another attempt would fail in the same way."""

    def __init__(self, address: str, reason: str, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(address, reason)


class ConnectionLost(NetworkError):
    """An open connection ended, and this side did not end it. `refused`: the broker closed it after an error frame,
    which is logged separately."""

    def __init__(self, address: str, reason: str, refused: bool = False) -> None:
        self.refused = refused
        super().__init__(address, reason)


# ── an object store's ───────────────────────────────────────────────────────────────────────────


class StoreError(QtoolsError):
    """A request to an object store failed. `url` names the store, or one of its objects.

    `permanent`: another attempt would fail in the same way until the user corrects something, such as credentials.
    """

    def __init__(self, url: str, reason: str, permanent: bool = False) -> None:
        self.url, self.reason, self.permanent = url, reason, permanent
        super().__init__(f"{url}: {reason}")


class ObjectDiffers(StoreError):
    """An object of this name exists with other contents, and is not overwritten. `there`, `here`: what differs, in
    words."""

    def __init__(self, url: str, there: str, here: str) -> None:
        self.there, self.here = there, here
        super().__init__(url, f"is there already, with other contents: {there}, where {here}; neither is changed", True)


# ── the sink's ──────────────────────────────────────────────────────────────────────────────────


class SinkError(QtoolsError):
    """The sink did not take all of a batch: only the first `taken` messages are safe, and the others are requeued."""

    def __init__(self, message: str, taken: int = 0) -> None:
        self.taken = taken
        super().__init__(message)


class SinkClosed(SinkError):
    """The reader has closed the pipe, or as many messages as requested were written: the run ends without an error."""


class MessageRefused(SinkError):
    """One message that the sink can never take. is_too_large: whether because of its size, as almost always."""

    def __init__(self, message: str, *, is_too_large: bool = True) -> None:
        self.is_too_large = is_too_large
        super().__init__(message)


class RouteFailed(MessageRefused):
    """A message that cannot be routed. `reason` says why; `route` is the name of the route that failed, or ""."""

    def __init__(self, reason: str, route: str = "") -> None:
        self.reason, self.route = reason, route
        super().__init__(f"route {route!r}: {reason}" if route else reason, is_too_large=False)


class Postponed(SinkError):
    """One message that the sink cannot take now: it is requeued with the delay `delay_ms`."""

    def __init__(self, message: str, delay_ms: int) -> None:
        self.delay_ms = delay_ms
        super().__init__(message)


class PartialFailure(SinkError):
    """Some messages of a batch failed. `failed`: index in the batch → its error. The others are safe."""

    def __init__(self, failed: dict[int, QtoolsError]) -> None:
        self.failed = failed
        first = next(iter(failed.values()))
        super().__init__(f"{len(failed)} of a batch failed, first: {first}")
