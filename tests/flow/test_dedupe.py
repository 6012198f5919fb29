"""Which keys are known: reserved, committed, expired, and held against a dict."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from qtools.errors import SinkError
from qtools.flow import dedupe as dedupe_module
from qtools.flow.dedupe import DUPLICATE, NEW, PENDING, Dedupe, holds
from tests.flow.dedupes import keys, known, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


# ── the two steps ─────────────────────────────────────────────────────────────────────────────────


def test_reserved_then_committed(path: Path) -> None:
    with opened(path) as made:
        assert made.check_and_reserve(keys(1, 2), 0.0) == [NEW, NEW]
        assert made.check_and_reserve(keys(1, 2, 3), 0.0) == [PENDING, PENDING, NEW]
        made.commit(keys(1), 0.0)
        made.release(keys(2))
        assert made.check_and_reserve(keys(1, 2, 3), 0.0) == [DUPLICATE, NEW, PENDING]
        assert (made.size, made.reserved, made.duplicates, made.pending) == (1, 2, 1, 3)


def test_equal_keys_in_one_batch_wait_for_the_first(path: Path) -> None:
    with opened(path) as made:
        assert made.check_and_reserve([b"a", b"a", b"", b"", b"a"], 0.0) == [NEW, PENDING, NEW, PENDING, PENDING]
        made.commit([b"a"], 0.0)
        made.release([b""])
        assert made.check_and_reserve([b"a", b""], 0.0) == [DUPLICATE, NEW]


def test_what_was_not_committed_is_not_known_after_a_start(path: Path) -> None:
    with opened(path) as made:
        made.check_and_reserve(keys(1, 2), 0.0)
        made.commit(keys(1), 0.0)
    assert known(path, keys(1, 2)) == [True, False]


def test_only_what_is_reserved_can_be_committed(path: Path) -> None:
    with opened(path) as made:
        made.check_and_reserve(keys(1), 0.0)
        with pytest.raises(ValueError, match=r"b'key 2' was not reserved"):
            made.commit(keys(1, 2), 0.0)
        assert made.check_and_reserve(keys(1), 0.0) == [PENDING]
        made.commit(keys(1, 1), 0.0)
        with pytest.raises(ValueError, match="was not reserved"):
            made.commit(keys(1), 0.0)
        made.commit([], 0.0)
        made.release(keys(1, 7))
        assert (made.size, made.check_and_reserve(keys(1), 0.0)) == (1, [DUPLICATE])


@pytest.mark.parametrize(("window", "max_keys"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_bounds_that_cannot_be(path: Path, window: float, max_keys: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Dedupe(path, window=window, max_keys=max_keys)


# ── the bounds ────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_known_for_the_window_and_no_longer(path: Path) -> None:
    with opened(path, window=10.0) as made:
        for now in (0.0, 4.0):
            made.check_and_reserve(keys(int(now)), now)
            made.commit(keys(int(now)), now)
        assert made.check_and_reserve(keys(0, 4), 9.999) == [DUPLICATE, DUPLICATE]
        assert made.check_and_reserve(keys(0, 4), 10.0) == [NEW, DUPLICATE]
        assert (made.size, made.expired, made.evicted) == (1, 1, 0)
        assert made.check_and_reserve(keys(4), 1000.0) == [NEW]
        assert (made.size, made.expired) == (0, 2)
        made.commit(keys(0, 4), 1000.0)
        assert made.check_and_reserve(keys(0, 4), 1009.0) == [DUPLICATE, DUPLICATE]


def test_what_has_expired_stays_so_after_a_start(path: Path) -> None:
    with opened(path) as made:
        made.check_and_reserve(keys(1, 2), 0.0)
        made.commit(keys(1), 0.0)
        made.commit(keys(2), 50.0)
    with opened(path) as made:
        assert made.size == 2
        assert made.check_and_reserve(keys(1, 2), 120.0) == [NEW, DUPLICATE]
    with opened(path) as made:
        assert made.size == 1
        assert made.check_and_reserve(keys(2), 149.0) == [DUPLICATE]


def test_the_oldest_go_for_room(path: Path) -> None:
    with opened(path, max_keys=10) as made:
        for number in range(25):
            made.check_and_reserve(keys(number), 0.0)
            made.commit(keys(number), 0.0)
        assert (made.size, made.evicted, made.expired) == (10, 15, 0)
        assert made.check_and_reserve(keys(*range(25)), 0.0) == [NEW] * 15 + [DUPLICATE] * 10
    assert known(path, keys(14, 15), max_keys=10) == [False, True]
    assert known(path, keys(20, 21), max_keys=4) == [False, True]  # fewer than before


def test_a_batch_beyond_the_bound_keeps_its_last(path: Path) -> None:
    with opened(path, max_keys=10) as made:
        made.check_and_reserve(keys(*range(30)), 0.0)
        made.commit(keys(*range(30)), 0.0)
        assert (made.size, made.evicted, made.reserved) == (10, 20, 0)
        assert made.check_and_reserve(keys(19, 20, 29), 0.0) == [NEW, DUPLICATE, DUPLICATE]


def test_the_disk_is_bounded_while_keys_come_and_go(path: Path) -> None:
    with opened(path, max_keys=20_000) as made:
        sizes = []
        for start in range(0, 150_000, 500):
            batch = keys(*range(start, start + 500))
            made.check_and_reserve(batch, 0.0)
            made.commit(batch, 0.0)
            sizes.append(sum(file.stat().st_size for file in path.parent.glob("keys*")))
        assert made.size == 20_000
        assert max(sizes) < 20_000 * 17 + 5_000_000  # 4 MB of it are the WAL


def commit(made: Dedupe, number: int, now: float) -> None:
    made.check_and_reserve(keys(number), now)
    made.commit(keys(number), now)


def test_a_commit_while_the_clock_was_ahead_does_not_keep_the_later_ones(path: Path) -> None:
    with opened(path, window=10.0) as made:
        commit(made, 0, 1_000_000.0)
        commit(made, 1, 50.0)
        commit(made, 2, 55.0)
        assert made.check_and_reserve(keys(0, 1, 2), 59.0) == [DUPLICATE] * 3  # the first counts as of 50, too
        assert made.check_and_reserve(keys(0, 1, 2), 60.0) == [NEW, NEW, DUPLICATE]
        assert made.check_and_reserve(keys(2), 65.0) == [NEW]
        assert (made.size, made.expired) == (0, 3)


def test_a_time_in_the_future_is_lowered_once_and_not_at_every_start(path: Path) -> None:
    with opened(path, window=10.0) as made:
        commit(made, 0, 1_000_000.0)
    for now, verdict in ((50.0, DUPLICATE), (55.0, DUPLICATE), (59.9, DUPLICATE), (60.0, NEW)):
        with opened(path, window=10.0) as made:
            assert made.check_and_reserve(keys(0), now) == [verdict], now


def test_times_that_an_earlier_version_left_out_of_order(path: Path) -> None:
    with opened(path, window=10.0) as made:
        for number in range(200):  # more rows than are looked at together
            commit(made, number, 100.0)
    with closing(sqlite3.connect(path)) as base, base:
        for seq, hashes in base.execute("SELECT seq, hashes FROM commits").fetchall():
            at = 1000.0 if seq in (1, 60, 150) else 40.0 if seq == 100 else 100.0
            base.execute(
                "UPDATE commits SET at = ?, crc = ? WHERE seq = ?", (at, dedupe_module._crc(seq, at, hashes), seq)
            )
    some = keys(0, 59, 99, 100, 149, 199)
    for _ in range(2):
        with opened(path, window=10.0) as made:
            assert made.check_and_reserve(some, 49.0) == [DUPLICATE] * 6
    with opened(path, window=10.0) as made:
        assert made.check_and_reserve(some, 50.0) == [NEW] * 3 + [DUPLICATE] * 3
        assert made.size == 100
    with opened(path, window=10.0) as made:  # what stands behind was lowered to 49.0, when that was the present
        assert made.check_and_reserve(keys(100, 199), 59.0) == [NEW] * 2


def test_a_disk_that_does_not_take_the_lowered_times(path: Path) -> None:
    with opened(path) as made:
        commit(made, 0, 1000.0)
        made._base.execute("PRAGMA query_only = 1")
        with pytest.raises(SinkError, match=r"^cannot correct the times of keys in .*keys: attempt to write"):
            made.check_and_reserve(keys(0), 500.0)
        made._base.execute("PRAGMA query_only = 0")
        assert made.check_and_reserve(keys(0), 500.0) == [DUPLICATE]


def test_a_clock_that_was_set_back_and_a_newest_that_went_for_room(path: Path) -> None:
    with opened(path, window=10.0, max_keys=1) as made:
        commit(made, 0, 100.0)
        commit(made, 1, 50.0)
        assert made.check_and_reserve(keys(0, 1), 59.0) == [NEW, DUPLICATE]
        assert made.check_and_reserve(keys(1), 60.0) == [NEW]
        assert (made.size, made.evicted, made.expired) == (0, 1, 1)


# ── against a dict ────────────────────────────────────────────────────────────────────────────────


class Model(RuleBasedStateMachine):
    """Few keys, so that they meet; every step is done to a dict and a set too."""

    MOST = 9  # so few that each row on disk has one key, and exactly the oldest go for room

    def __init__(self) -> None:
        super().__init__()
        self.room = Path(tempfile.mkdtemp(prefix="dedupe-"))
        self.now = 0.0
        self.committed: dict[bytes, float] = {}  # in the order of committing
        self.reserved: set[bytes] = set()
        self.made = self.open()

    def open(self) -> Dedupe:
        return Dedupe(self.room / "keys", window=10.0, max_keys=self.MOST)

    def teardown(self) -> None:
        self.made.close()
        shutil.rmtree(self.room)

    some = st.lists(st.integers(0, 12).map(b"%d".__mod__), max_size=8)

    @rule(batch=some)
    def check(self, batch: list[bytes]) -> None:
        self.committed = {key: min(at, self.now) for key, at in self.committed.items() if self.now - at < 10.0}
        expected = []
        for key in batch:
            verdict = PENDING if key in self.reserved else DUPLICATE if key in self.committed else NEW
            if verdict is NEW:
                self.reserved.add(key)
            expected.append(verdict)
        assert self.made.check_and_reserve(batch, self.now) == expected

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        batch = data.draw(st.lists(st.sampled_from(sorted(self.reserved)), unique=True))
        self.made.commit(batch, self.now)
        self.committed = {key: min(at, self.now) for key, at in self.committed.items()}
        self.reserved.difference_update(batch)
        self.committed.update(dict.fromkeys(batch, self.now))
        for key in list(self.committed)[: max(0, len(self.committed) - self.MOST)]:
            del self.committed[key]

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        batch = data.draw(st.lists(st.sampled_from(sorted(self.reserved)), unique=True))
        self.made.release(batch)
        self.reserved.difference_update(batch)

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.5, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0.5, 9.5, 1000.0]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.now -= seconds

    @rule()
    def reopen(self) -> None:
        self.made.close()
        self.made = self.open()
        self.reserved.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert self.made.reserved == len(self.reserved)
        assert sum(self.now - at < 10.0 for at in self.committed.values()) <= self.made.size <= self.MOST
        assert self.made.size == sum(map(len, self.made._strings)) // 14


def test_it_does_what_a_dict_does() -> None:
    run_state_machine_as_test(Model, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))


few = st.lists(st.sampled_from([0, 1]), min_size=14, max_size=14).map(bytes)


@given(st.lists(few, min_size=1, max_size=40), st.data())
def test_what_stands_across_two_is_neither(rests: list[bytes], data: st.DataObject) -> None:
    string = bytearray().join(rests)
    at = data.draw(st.integers(0, len(string) - 14))
    for wanted in (bytes(string[at : at + 14]), *rests):
        assert holds(string, wanted) == (wanted in rests)
    assert not holds(bytearray(), rests[0])
