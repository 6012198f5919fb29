"""Each command that is sent to Redis, encoded. In: names, ids, numbers. Out: bytes.

A command is a list of strings: *COUNT, then $LENGTH and the string for each word. What is sent for each message, or for
each id, is encoded in one pass over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.redis.protocol.entries import BODY, fields_of

Word = bytes | str | int


def encode(*words: Word) -> bytes:
    """One command."""
    made = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape")
        made.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(made)


def _encode_with(words: Sequence[Word], many: Sequence[bytes], last: Sequence[Word] = ()) -> bytes:
    """One command of `words`, `many`, `last`."""
    head = encode(*words)
    head = b"*%d\r\n" % (len(words) + len(many) + len(last)) + head[head.index(b"\n") + 1 :]
    tail = encode(*last)
    return head + _strings(many) + tail[tail.index(b"\n") + 1 :]


def _strings(many: Sequence[bytes]) -> bytes:
    """Each of `many` as a string. Most have one of few lengths, so that each length is encoded once."""
    if not many:
        return b""
    heads = {length: b"\r\n$%d\r\n" % length for length in set(map(len, many))}
    flat: list[bytes] = [b""] * (2 * len(many))
    flat[::2] = map(heads.__getitem__, map(len, many))
    flat[1::2] = many
    flat[0] = flat[0][2:]
    flat.append(b"\r\n")
    return b"".join(flat)


# ── the connection ──


def hello(version: int, name: str, user: str, password: bytes) -> bytes:
    """Ask for a version of the protocol, 2 or 3; identify, if there is a password; name the connection."""
    words: list[Word] = ["HELLO", version]
    if password:
        words += ["AUTH", user or "default", password]
    return encode(*words, "SETNAME", name)


# ── publishing ──


def add_entries(topic: str, bodies: Sequence[bytes], attributes: Attributes, options: Sequence[Word] = ()) -> bytes:
    """XADD for each message. options: between the key and the id, as NOMKSTREAM and MAXLEN."""
    before = ("XADD", topic, *options, "*")
    has_bodies_only = attributes.keys is None and attributes.headers is None and attributes.timestamps is None
    if has_bodies_only and (b"" not in bodies or not any(body is TOMBSTONE for body in bodies)):
        words = encode(*before, BODY)
        prefix = b"*%d\r\n" % (len(before) + 2) + words[words.index(b"\n") + 1 :]
        heads = {length: b"\r\n" + prefix + b"$%d\r\n" % length for length in set(map(len, bodies))}
        flat: list[bytes] = [b""] * (2 * len(bodies))
        flat[::2] = map(heads.__getitem__, map(len, bodies))
        flat[1::2] = bodies
        flat.append(b"\r\n")
        return b"".join(flat)[2:]
    keys, headers, timestamps = attributes[:3]
    return b"".join(
        [
            encode(
                *before,
                *fields_of(
                    body,
                    None if keys is None else keys[place],
                    () if headers is None else headers[place],
                    None if timestamps is None else timestamps[place],
                ),
            )
            for place, body in enumerate(bodies)
        ]
    )


# ── reading ──


def read_group(group: str, consumer: str, count: int, topic: str, after: str = ">", block_ms: int = 0) -> bytes:
    """At most `count` new entries for `consumer`; with `after` an id, entries after it that this consumer was given
    and has not finished. block_ms: how long to wait for the first one; 0: not at all."""
    block: tuple[Word, ...] = ("BLOCK", block_ms) if block_ms else ()
    return encode("XREADGROUP", "GROUP", group, consumer, "COUNT", count, *block, "STREAMS", topic, after)


def read_stream(count: int, topic: str, after: bytes, block_ms: int = 0) -> bytes:
    """At most `count` entries after the id `after`, without a group."""
    block: tuple[Word, ...] = ("BLOCK", block_ms) if block_ms else ()
    return encode("XREAD", "COUNT", count, *block, "STREAMS", topic, after)


def read_range(topic: str, first: Word = "-", last: Word = "+", count: int = 0) -> bytes:
    """The entries from `first` to `last`, ids or "-", "+"; an id after "(" is left out."""
    return encode("XRANGE", topic, first, last, *(("COUNT", count) if count else ()))


def acknowledge(topic: str, group: str, ids: Sequence[bytes]) -> bytes:
    return _encode_with(("XACK", topic, group), ids)


def claim(
    topic: str, group: str, consumer: str, ids: Sequence[bytes], options: Sequence[Word] = (), least_idle_ms: int = 0
) -> bytes:
    """Give `ids` to `consumer` if they were not touched for `least_idle_ms`. options: as JUSTID and IDLE, with their
    values."""
    return _encode_with(("XCLAIM", topic, group, consumer, least_idle_ms), ids, options)


def claim_idle(topic: str, group: str, consumer: str, least_idle_ms: int, start: Word, count: int) -> bytes:
    """Give to `consumer` at most `count` entries, from the id `start` on, that were not touched for `least_idle_ms`."""
    return encode("XAUTOCLAIM", topic, group, consumer, least_idle_ms, start, "COUNT", count)


def pending_of(topic: str, group: str, first: Word, last: Word, count: int, consumer: str = "") -> bytes:
    """What is pending from the id `first` to `last`: [id, consumer, ms since it was touched, deliveries] each."""
    return encode("XPENDING", topic, group, first, last, count, *((consumer,) if consumer else ()))


# ── groups ──


def create_group(topic: str, group: str, after: Word) -> bytes:
    """A group that begins after the id `after`. The stream has to exist."""
    return encode("XGROUP", "CREATE", topic, group, after)


def create_stream(topic: str) -> bytes:
    """An empty stream: two commands, as only a group makes one, which is deleted again."""
    make = encode("XGROUP", "CREATE", topic, "qtools-makes-the-stream", "$", "MKSTREAM")
    return make + encode("XGROUP", "DESTROY", topic, "qtools-makes-the-stream")


# A consumer that a process has left behind can be deleted only while nothing is pending for it, as XGROUP DELCONSUMER
# drops that. A script looks and deletes in one step.
_DELETE_CONSUMERS = """\
local deleted = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local of = {}
  for place = 1, #consumer, 2 do of[consumer[place]] = consumer[place + 1] end
  local is_ours = of.name == ARGV[2]
  local is_left = string.sub(of.name, 1, #ARGV[3]) == ARGV[3] and of.name ~= ARGV[4] and of.idle > tonumber(ARGV[5])
  if of.pending == 0 and (is_ours or is_left) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], of.name)
    deleted = deleted + 1
  end
end
return deleted
"""


def delete_consumers(topic: str, group: str, own: str, prefix: str, kept: str, idle_ms: int) -> bytes:
    """Delete the consumer `own`, and those whose names begin with `prefix` that did nothing for `idle_ms`, if nothing
    is pending for them; but never the consumer `kept`."""
    return encode("EVAL", _DELETE_CONSUMERS, 1, topic, group, own, prefix, kept, idle_ms)
