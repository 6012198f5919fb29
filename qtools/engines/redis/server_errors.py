"""What a server's errors mean. In: ErrorReply. Out: QtoolsError, in one plain sentence; whether it passes by itself.

the connection    NOAUTH WRONGPASS NOPERM (of AUTH, HELLO, SELECT)      it is not used
for now           LOADING BUSY MISCONF OOM READONLY …                   tried again, in order, while time allows
a topic           WRONGTYPE NOPERM MOVED NOGROUP                        each of its messages is refused, by name
"""

from __future__ import annotations

from qtools.engines.redis.protocol.replies import ErrorReply
from qtools.errors import AuthError, BrokerError, NetworkError, PeerError

# With these nothing of a command was executed, and another attempt may succeed without anybody changing a message.
PASSING = frozenset(
    {
        "LOADING",  # the server reads its data after a start
        "BUSY",  # a script runs for long
        "MISCONF",  # the disk does not take the last snapshot or log
        "OOM",  # maxmemory is reached, and nothing may be evicted
        "READONLY",  # the server is a replica: the address may lead to the new master soon
        "MASTERDOWN",
        "NOREPLICAS",  # fewer replicas than min-replicas-to-write
        "CLUSTERDOWN",
        "TRYAGAIN",
        "ASK",  # the slot moves to another node
    }
)
# With these another connection may lead to a server that accepts the command.
ELSEWHERE = frozenset({"READONLY", "MASTERDOWN"})
_OF_USER = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})
_SENTENCES = {
    "WRONGTYPE": "the key exists and is no stream: use another topic, or delete the key",
    "NOAUTH": "authentication is required: give a password (a profile, or QTOOLS_REDIS_PASSWORD)",
    "WRONGPASS": "authentication failed: the user or the password is wrong",
    "OOM": "its memory is full (maxmemory)",
    "MISCONF": "it accepts no writes, as it cannot write to its disk (MISCONF)",
    "READONLY": "it is a replica, which accepts no writes: give the address of the master",
    "MASTERDOWN": "it is a replica, and its master is down",
    "LOADING": "it is loading its data",
    "NOREPLICAS": "too few replicas are connected to it (min-replicas-to-write)",
    "CLUSTERDOWN": "its cluster is down",
}


class RedisRefused(BrokerError):
    """The server at `address` refuses something. topic: "" if it concerns none."""

    def __init__(self, reply: ErrorReply, sentence: str, address: str, topic: str = "") -> None:
        PeerError.__init__(self, f"topic {topic}: {sentence}" if topic else sentence, address)
        self.code, self.text, self.command, self.topic = reply.code, reply.text, "", topic


class RedisAuthError(AuthError, RedisRefused):
    """The server at `address` does not know the user, or does not allow what the user wants."""

    def __init__(self, reply: ErrorReply, sentence: str, address: str, topic: str = "") -> None:
        RedisRefused.__init__(self, reply, sentence, address, topic)


def error_of(reply: ErrorReply, address: str, topic: str = "") -> RedisRefused:
    """The error for `reply` of the server at `address`, to a command that concerns `topic`."""
    sentence = _SENTENCES.get(reply.code, f"it answers {reply}")
    if reply.code == "MOVED":
        node = reply.text.rpartition(" ")[2]
        sentence = f"it is on another node of the cluster: use redis://{node or 'that node'}"
    elif reply.code == "NOPERM":
        sentence = f"this user may not do that: {reply}"
    elif "without any password configured" in reply.text:
        sentence = "authentication failed: the server has no password, and one was given"
    elif "invalid DB index" in reply.text or "DB index is out of range" in reply.text:
        sentence = "it has no database of this number: leave out db, or use a smaller one"
    elif "max number of clients" in reply.text:
        sentence = "it has too many clients (maxclients)"
    kind = RedisAuthError if reply.code in _OF_USER or "authentication failed" in sentence else RedisRefused
    return kind(reply, sentence, address, topic)


def refusal_of(reply: ErrorReply, address: str, topic: str = "") -> NetworkError | RedisRefused:
    """As `error_of`; NetworkError for an error of PASSING, after which what was asked is asked again."""
    error = error_of(reply, address, topic)
    return NetworkError(address, error.reason) if reply.code in PASSING else error
