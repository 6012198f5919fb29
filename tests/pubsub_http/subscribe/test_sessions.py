"""What a session holds, and when it lets go; time is what the test says."""

from __future__ import annotations

from collections.abc import Sequence

from qtools.message import Batch, Message, Messages
from qtools.pubsub_http.api.tokens import Caller
from qtools.pubsub_http.subscribe.sessions import AckSession


class Ledger:
    """An origin that writes down what became of its messages."""

    topic = "events"
    is_lost = False

    def __init__(self, address: str = "one") -> None:
        self.address = address
        self.told: list[tuple[str, bytes]] = []

    def batch(self, *numbers: int) -> Batch:
        return Batch.of(self, Messages.of(Message(1, 1, b"%016d" % number, b"x") for number in numbers))

    def finish(self, ids: Sequence[bytes]) -> None:
        self.told += [("finish", ident) for ident in ids]

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        self.told += [(f"requeue {delay_ms}", ident) for ident in ids]

    def touch(self, ids: Sequence[bytes]) -> None:
        raise AssertionError("the connection does that by itself")


def ident(number: int) -> str:
    return f"{number:016d}"


def session() -> AckSession:
    return AckSession("name", Caller("anybody"), 10.0)


def test_each_is_finished_once() -> None:
    ledger, held = Ledger(), session()
    held.add(ledger.batch(1, 2, 3), 0.0)
    assert held.finish([ident(1), ident(3), ident(3), "unknown", "ü"]) == (2, [ident(3), "unknown", "ü"])
    assert held.requeue([ident(2), ident(1)], 500) == (1, [ident(1)])
    assert ledger.told == [("finish", b"%016d" % 1), ("finish", b"%016d" % 3), ("requeue 500", b"%016d" % 2)]
    assert len(held) == 0


def test_what_is_held_too_long_goes_back_and_touch_gives_time() -> None:
    ledger, held = Ledger(), session()
    held.add(ledger.batch(1, 2), 0.0)
    held.add(ledger.batch(3), 5.0)
    assert held.touch([ident(1)], 8.0) == (1, [])
    assert held.expire(9.9) == 0
    assert held.expire(10.0) == 1
    assert held.expire(15.0) == 1
    assert held.expire(17.9) == 0
    assert held.expire(18.0) == 1
    assert [int(one) for _, one in ledger.told] == [2, 3, 1]
    assert (held.timed_out, held.finish([ident(1)])) == (3, (0, [ident(1)]))


def test_the_same_id_from_another_nsqd_waits() -> None:
    one, two, held = Ledger("one"), Ledger("two"), session()
    assert len(held.add(one.batch(1, 2), 0.0)) == 2
    assert [int(each) for each in held.add(two.batch(2, 3), 0.0).ids] == [3]
    assert two.told == [("requeue 1000", b"%016d" % 2)]
    held.finish([ident(2)])
    assert one.told == [("finish", b"%016d" % 2)]


def test_the_same_id_from_the_same_nsqd_had_timed_out() -> None:
    before, after, held = Ledger(), Ledger(), session()
    held.add(before.batch(1), 0.0)
    assert len(held.add(after.batch(1), 0.0)) == 1
    held.finish([ident(1)])
    assert (before.told, after.told) == ([], [("finish", b"%016d" % 1)])
