"""A set of block numbers, beside one of Python's."""

from __future__ import annotations

import random

from qtools.broker.disk.channel.seq_set import SeqSet


def test_it_holds_what_a_set_holds() -> None:
    chance = random.Random(1)
    made, beside, other = SeqSet(), set[int](), SeqSet()
    for step in range(5000):
        seq = chance.choice([chance.randrange(50), chance.randrange(3000), chance.randrange(10**9)])
        if beside and chance.random() < 0.4:
            seq = chance.choice(sorted(beside)[:20])
            made.discard(seq)
            beside.discard(seq)
        else:
            made.add(seq)
            beside.add(seq)
        made.discard(10**12)
        assert (seq in made) == (seq in beside)
        assert made.lowest(-1) == min(beside, default=-1)
        if step % 100 == 0:
            assert list(made) == sorted(beside)
            assert made.first(7) == sorted(beside)[:7]
    other.add(3)
    other.add_bits(4096, 0b1001)
    other.update(made)
    assert list(other) == sorted(beside | {3, 4096, 4099})
    made.clear()
    assert not made
    assert made.lowest(5) == 5
