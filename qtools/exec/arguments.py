"""A message as the arguments, the environment and the input of a command. In: a batch. Out: lists of bytes, and bytes.

    {} in an argument      the body; the command has no input then (--replace names another text)
    stdin                  otherwise: the messages of the batch in --format
    Q_TOPIC Q_CHANNEL Q_ID Q_ATTEMPTS Q_TIMESTAMP Q_SOURCE Q_COUNT      always; of the first message of a batch
    Q_KEY Q_PARTITION Q_OFFSET Q_HEADER_NAME                            where the engine has them

A name of a header is written in capitals, with _ for each character that no variable can have. No variable and no
argument can hold a NUL byte: such a key or header is in Q_KEY_BASE64 or Q_HEADER_NAME_BASE64, and such a body cannot be
an argument.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence

from qtools.errors import MessageRefused
from qtools.formats.encoders import make_format
from qtools.message import Batch

PREFIX = b"Q_"
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9]")


class CommandArguments:
    """What a command gets for each batch.

    command: the program and its arguments. replace: the text that stands for the body in an argument, "" for none.
    form, delimiter: of the input. channels: topic → the channel, or channels, through which it is read.
    bodies_for: a batch with the bodies that a command gets.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        replace: str,
        form: str,
        delimiter: bytes,
        channels: Mapping[str, str],
        bodies_for: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:
        self._bodies_for = bodies_for
        self._command = [os.fsencode(word) for word in command]
        self._replace = os.fsencode(replace)
        places = range(1, len(self._command)) if replace else ()
        self._places = [place for place in places if self._replace in self._command[place]]
        self._join = make_format(form, delimiter).join
        # A single raw body is passed as it is: a delimiter after it would be no part of the message.
        self._is_raw = form == "raw"
        self._channels = {topic: channel.encode() for topic, channel in channels.items()}
        # Variables of this name are a message's, and not those of a q-exec around this one.
        self._inherited = {name: value for name, value in os.environb.items() if not name.startswith(PREFIX)}

    def arguments(self, batch: Batch) -> list[bytes]:
        """The program and its arguments for `batch`. MessageRefused if its body cannot be an argument."""
        if not self._places:
            return self._command
        body = self._bodies_for(batch).bodies[0]
        if b"\0" in body:
            raise MessageRefused("its body has a NUL byte, and cannot be an argument", is_too_large=False)
        words = list(self._command)
        for place in self._places:
            words[place] = words[place].replace(self._replace, body)
        return words

    def input(self, batch: Batch) -> bytes:
        """What the command reads on stdin."""
        if self._places:
            return b""
        batch = self._bodies_for(batch)
        return batch.bodies[0] if self._is_raw and len(batch) == 1 else self._join(batch)

    def environment(self, batch: Batch) -> dict[bytes, bytes]:
        """All variables of the command for `batch`."""
        origin, message = batch.parts[0][0], batch.messages[0]
        found = {
            b"TOPIC": origin.topic.encode(),
            b"CHANNEL": self._channels.get(origin.topic, b""),
            b"ID": message.id,
            b"ATTEMPTS": b"%d" % message.attempts,
            b"TIMESTAMP": b"%d" % message.timestamp,
            b"SOURCE": origin.address.encode(),
            b"COUNT": b"%d" % len(batch),
        }
        if (attributes := batch.attributes()) is not None:
            for name, column in (("PARTITION", attributes.partitions), ("OFFSET", attributes.offsets)):
                if column is not None:
                    found[name.encode()] = b"%d" % column[0]
            if attributes.keys is not None and (key := attributes.keys[0]) is not None:
                _add(found, b"KEY", bytes(key))
            for name, value in attributes.headers[0] if attributes.headers is not None else ():
                if value is not None:
                    _add(found, b"HEADER_" + _NOT_IN_NAMES.sub("_", name.upper()).encode(), value)
        return self._inherited | {PREFIX + name: value for name, value in found.items() if b"\0" not in value}


def _add(found: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    if b"\0" in value:
        found[name + b"_BASE64"] = b64encode(value)
    else:
        found[name] = value
