"""Every error qtools raises, in one tree, split by whose fault it is and what happens next.

    QtoolsError
    ├── UsageError            the user's: said at once, exit 2
    │   ├── NameInvalid         a topic or channel name NSQ would not take
    │   ├── AddressInvalid      an address that cannot be one
    │   └── ExpressionError     a filter expression that is none
    ├── StartError            the surroundings': could not start, exit 3
    ├── InputError            the input's: what was read is not what it was said to be, exit 1
    ├── EvaluationError       one message's: an expression has no result for it
    ├── SourcePaused          the broker's operator: a paused channel hands out nothing, exit 1
    ├── SourceDeleted         the broker's operator: what it held is gone unread, exit 1
    ├── PeerError             the peer's: the connection closes
    │   ├── ProtocolError       its bytes are not NSQ's protocol
    │   ├── BrokerError         it answered with an error frame
    │   │   ├── AuthError         … because of who we are
    │   │   └── SizeError         … because of how much we sent
    │   └── UpgradeRefused      it did not grant what was asked for (TLS, compression)
    ├── NetworkError          the network's: tried again
    │   ├── ConnectFailed       no connection came about
    │   └── ConnectionLost      an open one ended
    ├── StoreError            an object store's, or its network's: tried again unless hopeless
    │   └── ObjectDiffers       what is there under that name is something else
    └── SinkError             the sink's: what it did not take goes back to the queue
        ├── SinkClosed          nobody reads any more (a closed pipe): ends quietly
        ├── MessageRefused      one message cannot be taken, now or ever
        │   └── RouteFailed         … as no topic can be told for it
        ├── Postponed           one message cannot be taken now: it comes again later
        └── PartialFailure      some of a batch, named

An error carries fields and composes its own sentence: it names the thing, what was wrong, what to do.
This module imports nothing.
"""

from __future__ import annotations


class QtoolsError(Exception):
    """The root. `str()` of any of them is one line, fit to be shown to a user."""

    exit_status = 1


# ── the user's ──────────────────────────────────────────────────────────────────────────────────


class UsageError(QtoolsError):
    """The command line or a configuration asks for something that cannot be."""

    exit_status = 2


class NameInvalid(UsageError):
    """A topic or channel name that NSQ does not allow. `kind` is "topic" or "channel"."""

    def __init__(self, kind: str, name: str, reason: str) -> None:
        self.kind, self.name, self.reason = kind, name, reason
        super().__init__(f"{kind} name {name!r} {reason}")


class AddressInvalid(UsageError):
    """An address that cannot be one. A user name and a password in `text` are not shown."""

    def __init__(self, text: str, reason: str) -> None:
        self.text, self.reason = without_userinfo(text), reason
        super().__init__(f"address {self.text!r} {reason}")


def without_userinfo(text: str) -> str:
    """`text`, which may be any attempt at an address, fit to be shown: no user name and no password is in it."""
    if text.lower().startswith(("unix:/", "nsq+unix:/")) and "://" not in text:
        return text  # a path, in which an @ means nothing
    start, separator, rest = text.partition("://")
    # A password may hold any character where its author forgot to encode it: everything up to the last @ is hidden.
    return f"{start}{separator}{rest.rpartition('@')[2]}" if separator else text.rpartition("@")[2]


class ExpressionError(UsageError):
    """A filter expression that does not compile. `column` counts characters from 1; `why` says what was expected."""

    def __init__(self, text: str, column: int, why: str) -> None:
        self.text, self.column, self.why = text, column, why
        told = "".join(char if char.isprintable() else " " for char in text)
        start = max(0, min(column - 31, len(told) - 60))  # a long one is shown round the place
        window = ("…" if start else "") + told[start : start + 60] + ("…" if start + 60 < len(told) else "")
        super().__init__(f"expression '{window}', column {column}: {why}")


# ── the surroundings', the input's ──────────────────────────────────────────────────────────────


class StartError(QtoolsError):
    """What the program needs to begin is not there: a broker, a file, a lock."""

    exit_status = 3


class InputError(QtoolsError):
    """What was read is not what it was said to be. `offset` is in bytes from the input's start; `too_long` where a
    message is longer than may be held."""

    def __init__(self, message: str, offset: int | None = None, *, too_long: bool = False) -> None:
        self.offset, self.too_long = offset, too_long
        super().__init__(message)


class EvaluationError(QtoolsError):
    """An expression has no result for this value, as `1 + "a"` has none: jq would fail, in much the same words."""


class SourcePaused(QtoolsError):
    """`source` (TOPIC/CHANNEL) is paused on `nsqd`, or its topic is, with `left` messages in it."""

    def __init__(self, source: str, nsqd: str, left: int) -> None:
        self.source, self.nsqd, self.left = source, nsqd, left
        count = f"{left:,} message{'' if left == 1 else 's'}"
        super().__init__(f"{source} is paused on {nsqd}, and keeps {count} back")


class SourceDeleted(QtoolsError):
    """The `kind` ("topic" or "channel") called `name` was deleted on `nsqd` during a run that was to read all of it."""

    def __init__(self, kind: str, name: str, nsqd: str) -> None:
        self.kind, self.name, self.nsqd = kind, name, nsqd
        super().__init__(f"the {kind} {name} was deleted on {nsqd} during the run; what it still held was not read")


# ── the peer's ──────────────────────────────────────────────────────────────────────────────────


class PeerError(QtoolsError):
    """The peer did something that a connection does not survive: `reason` says what.

    `address` is the peer's, and begins the text; the code that opened the connection sets it,
    as a parser does not know it.
    """

    def __init__(self, reason: str, address: str = "") -> None:
        self.reason, self.address = reason, address
        super().__init__(reason)

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}" if self.address else self.reason


class ProtocolError(PeerError):
    """Bytes arrived that are not NSQ's protocol. `spoke` names what they look like, if known."""

    def __init__(self, message: str, spoke: str = "") -> None:
        self.spoke = spoke
        super().__init__(message)


class BrokerError(PeerError):
    """An error frame. `code` is NSQ's (`E_BAD_TOPIC`), `text` is the broker's and only for reading.

    `command` is the command it answers, where that is known.
    """

    def __init__(self, code: str, text: str = "", command: str = "") -> None:
        self.code, self.text, self.command = code, text, command
        # A peer's words: shown, but not let loose on a terminal.
        told = " ".join("".join(char if char.isprintable() else " " for char in f"{code} {text}").split())
        super().__init__(f"the broker refused {command}: {told}" if command else f"the broker says: {told}")


class AuthError(BrokerError):
    """AUTH is required, was refused, or does not allow this topic or channel."""


class SizeError(BrokerError):
    """A message or a body over the broker's limit: nothing of that command was queued."""


class UpgradeRefused(PeerError):
    """`what` ("TLS", "snappy", "deflate") was asked for and not granted; going on without is not safe."""

    def __init__(self, what: str, advice: str) -> None:
        self.what = what
        super().__init__(f"the broker does not offer {what}, which was asked for: {advice}")


# ── the network's ───────────────────────────────────────────────────────────────────────────────


class NetworkError(QtoolsError):
    """The network failed between here and `address`; the operation is tried again. `reason` says how it failed."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(address, reason)

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}"


class ConnectFailed(NetworkError):
    """No connection came about. `hopeless` when another try would end the same way."""

    def __init__(self, address: str, reason: str, hopeless: bool = False) -> None:
        self.hopeless = hopeless
        super().__init__(address, reason)


class ConnectionLost(NetworkError):
    """An open connection ended that nobody here wanted to end. `refused`: by a refusal, which is told by itself."""

    def __init__(self, address: str, reason: str, refused: bool = False) -> None:
        self.refused = refused
        super().__init__(address, reason)


# ── an object store's ───────────────────────────────────────────────────────────────────────────


class StoreError(QtoolsError):
    """A store of files did not do what was asked. `url` is what was asked of, a store or one of its objects.

    `hopeless` when another try would end the same way until somebody mends something: credentials, a bucket.
    """

    def __init__(self, url: str, reason: str, hopeless: bool = False) -> None:
        self.url, self.reason, self.hopeless = url, reason, hopeless
        super().__init__(f"{url}: {reason}")


class ObjectDiffers(StoreError):
    """Under this name there is an object with other contents. It is left as it is."""

    def __init__(self, url: str, there: str, here: str) -> None:
        self.there, self.here = there, here
        super().__init__(url, f"is there already, with other contents: {there}, where {here}; neither is changed", True)


# ── the sink's ──────────────────────────────────────────────────────────────────────────────────


class SinkError(QtoolsError):
    """The sink did not take a batch: of it only the first `taken` messages are safe, the rest goes back."""

    def __init__(self, message: str, taken: int = 0) -> None:
        self.taken = taken
        super().__init__(message)


class SinkClosed(SinkError):
    """Nobody reads any more, or all that was asked for was written: a quiet end."""


class MessageRefused(SinkError):
    """One message that cannot be taken, now or ever."""


class RouteFailed(MessageRefused):
    """A message that cannot be routed: `reason` is why, `route` the name of the route that failed, or ""."""

    def __init__(self, reason: str, route: str = "") -> None:
        self.reason, self.route = reason, route
        super().__init__(f"route {route!r}: {reason}" if route else reason)


class Postponed(SinkError):
    """One message that cannot be taken now: it goes back, to come again after `delay_ms`."""

    def __init__(self, message: str, delay_ms: int) -> None:
        self.delay_ms = delay_ms
        super().__init__(message)


class PartialFailure(SinkError):
    """Some of a batch failed: `failed` maps the place in the batch to why. The rest is safe."""

    def __init__(self, failed: dict[int, QtoolsError]) -> None:
        self.failed = failed
        first = next(iter(failed.values()))
        super().__init__(f"{len(failed)} of a batch failed, first: {first}")
