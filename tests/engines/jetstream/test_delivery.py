"""What ack subjects and headers say of messages, by column."""

from __future__ import annotations

from typing import Any

import pytest

from qtools.engines.connections.in_flight import InFlightLedger
from qtools.engines.jetstream.consume.delivery import JetStreamDelivery
from qtools.engines.jetstream.protocol.attributes import header_block
from qtools.errors import ProtocolError


class Nowhere:
    topic = "t"
    address = "nowhere"

    def finish(self, ids: Any) -> None: ...
    def requeue(self, ids: Any, delay_ms: int) -> None: ...
    def touch(self, ids: Any) -> None: ...


DELIVERY = InFlightLedger(Nowhere(), JetStreamDelivery).add([], 0.0)
V1 = b"$JS.ACK.S.C.%d.%d.7.%d.0"
V2 = b"$JS.ACK.hub.ACC.S.C.%d.%d.7.%d.0"


@pytest.mark.parametrize("form", [V1, V2, V2 + b".random"])
def test_ids_timestamps_and_attempts(form: bytes) -> None:
    assert isinstance(DELIVERY, JetStreamDelivery)
    plain = [form % (1, 255, 17), form % (3, 256, 18), form % (70_000, 257, 19)]
    records = [*plain, (form % (2, 258, 20), header_block(b"k", [("a", b"1")], 99)), (form % (1, 259, 21), b"")]
    made = DELIVERY.messages_of(records, [b"x"] * 5)
    assert [message.id for message in made] == [b"%016x" % number for number in range(255, 260)]
    assert made.timestamps() == [17, 18, 19, 99, 21]
    assert [message.attempts for message in made] == [1, 3, 65_535, 2, 1]
    assert DELIVERY.delivered_more_than(1, records) == {1: 3, 2: 70_000, 3: 2}
    assert DELIVERY.delivered_more_than(0, records[:1]) == {0: 1}
    assert DELIVERY.delivered_more_than(1, records[:1]) == {}
    found = DELIVERY.attributes_of(records)
    assert found.keys == [None, None, None, b"k", None]
    assert found.timestamps == [17, 18, 19, 99, 21]
    assert DELIVERY.attributes_of(records, ("keys",)).timestamps is None
    assert len(DELIVERY.messages_of([], [])) == 0


def test_a_subject_that_says_nothing() -> None:
    assert isinstance(DELIVERY, JetStreamDelivery)
    with pytest.raises(ProtocolError):
        DELIVERY.messages_of([V1 % (1, 2, 3), b"$JS.ACK.S.C.x.1.1.1.1"], [b"", b""])
