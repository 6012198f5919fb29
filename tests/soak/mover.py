"""A program that moves messages from one topic to another, with faults. In: a broker, two topics. Out: nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

from harness.brokers import Broker

from qtools.soak.bodies import MAGIC, PROBE

Numbered = tuple[int, bytes]
Fault = Callable[[list[Numbered]], list[bytes]]  # the messages that came together → the bodies that are passed on


class FaultyMover:
    """Moves what comes to `topic` on to `to`, in a thread, changed by `fault`; probes pass unchanged."""

    def __init__(self, broker: Broker, topic: str, to: str, fault: Fault) -> None:
        self._broker = broker
        self._to = to
        self._fault = fault
        broker.create(topic, "mover")
        self._reader = broker.reader(topic, "mover")
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_ended = True
        self._thread.join(20)
        self._reader.close()

    def _run(self) -> None:
        while not self._is_ended:
            messages = self._reader.read(0.05)
            bodies = [message.body for message in messages]
            assert all(body.startswith(MAGIC) for body in bodies)
            numbered = [(int.from_bytes(body[12:20]), body) for body in bodies]
            probes = [body for number, body in numbered if number >= PROBE]
            passed = probes + self._fault([each for each in numbered if each[0] < PROBE])
            if passed:
                self._broker.fill(self._to, passed)
            self._reader.finish(messages)
