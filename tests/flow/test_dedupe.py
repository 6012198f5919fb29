"""Keys that were seen: against a dict, over reopenings and kills, in damaged files, and 10 million of them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from qtools.errors import SinkError, StartError
from qtools.flow import dedupe as dedupe_module
from qtools.flow.dedupe import DUPLICATE, NEW, PENDING, Dedupe, holds

WINDOW = 100.0


@contextmanager
def opened(path: Path, *, window: float = WINDOW, max_keys: int = 1000) -> Iterator[Dedupe]:
    with closing(Dedupe(path, window=window, max_keys=max_keys)) as made:
        yield made


def keys(*numbers: int) -> list[bytes]:
    return [b"key %d" % number for number in numbers]


def known(path: Path, wanted: list[bytes], **bounds: float) -> list[bool]:
    """Which of `wanted` a fresh opening calls duplicates."""
    with opened(path, **bounds) as made:  # type: ignore[arg-type]
        return [verdict is DUPLICATE for verdict in made.check_and_reserve(wanted, 1.0)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


# ── the two steps ──


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


# ── the bounds ──


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


# ── against a dict ──


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


# ── kills, power failures, damage ──

WRITER = """
import sys
from pathlib import Path
from qtools.flow.dedupe import NEW, Dedupe
made = Dedupe(Path(sys.argv[1]), window=1e9, max_keys=20_000)
number = int(sys.argv[2])
while True:
    batch = [b"key %d" % each for each in range(number, number + 1 + number % 97)]
    verdicts = made.check_and_reserve(batch, 1.0)  # what was committed and not told before a kill is there already
    made.commit([key for key, verdict in zip(batch, verdicts) if verdict is NEW], 1.0)
    number += len(batch)
    print(number, flush=True)
"""


def test_what_was_committed_is_known_after_a_kill_at_any_moment(path: Path) -> None:
    draw = random.Random(7)
    number = 0
    for _ in range(12):
        words = [sys.executable, "-c", WRITER, str(path), str(number)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(draw.random() * 0.15)  # a moment by chance is what this is about
            writer.send_signal(signal.SIGKILL)
            told = [first, *writer.stdout.read().split(b"\n")[:-1]]  # behind the last newline stands half a number
        number = int(told[-1])
        assert all(known(path, keys(*range(max(0, number - 19_000), number)), max_keys=20_000))
    assert number > 20_000


def test_a_tail_that_a_power_failure_took_leaves_the_commits_before_it(path: Path, tmp_path: Path) -> None:
    with opened(path) as made:
        for number in range(60):
            made.check_and_reserve(keys(number), 0.0)
            made.commit(keys(number), 0.0)
        whole, log = path.read_bytes(), (tmp_path / "keys-wal").read_bytes()
    counts = set()
    for cut in range(0, len(log), len(log) // 23):
        copy = tmp_path / f"cut-{cut}"
        copy.write_bytes(whole)
        Path(f"{copy}-wal").write_bytes(log[:cut])
        found = known(copy, keys(*range(60)))
        assert found == sorted(found, reverse=True)  # the first so many
        counts.add(sum(found))
    assert len(counts) > 15


def filled(path: Path) -> list[bytes]:
    wanted = keys(*range(700))
    with opened(path) as made:
        for start in range(0, 700, 50):
            made.check_and_reserve(wanted[start : start + 50], 0.0)
            made.commit(wanted[start : start + 50], 0.0)
    return wanted


def test_no_damage_goes_unseen(path: Path) -> None:
    wanted = filled(path)
    whole = path.read_bytes()
    assert not Path(f"{path}-wal").exists()
    draw = random.Random(11)
    told = []
    for nth in range(250):
        damaged = bytearray(whole)
        at = draw.randrange(100) if nth < 50 else draw.randrange(len(whole))
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = known(path, wanted)
        except StartError as error:
            told.append(str(error))
        else:
            assert all(found), f"byte {at}"  # it was in a byte that means nothing
    assert len(told) > 60
    assert all(str(path) in each for each in told)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_file_that_was_cut_is_damaged(path: Path, share: float) -> None:
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(StartError, match=r"is damaged"):
        Dedupe(path, window=WINDOW, max_keys=1000)
    assert path.stat().st_size == int(len(whole) * share)  # and it is left as it is


@pytest.mark.parametrize("statement", [
    "DELETE FROM commits WHERE seq = 5",
    "UPDATE commits SET at = at + 1 WHERE seq = 5",
    "UPDATE commits SET hashes = zeroblob(16) WHERE seq = 5",
    "UPDATE commits SET hashes = 'text' WHERE seq = 5",
    "DELETE FROM about",
    "UPDATE about SET salt = zeroblob(16)",
    "DROP TABLE commits",
])  # fmt: skip
def test_a_file_that_was_tampered_with_is_damaged(path: Path, statement: str) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(statement)
    with pytest.raises(StartError, match="is damaged"):
        Dedupe(path, window=WINDOW, max_keys=1000)


def test_a_file_that_is_something_else(path: Path) -> None:
    path.write_text("my thesis\n" * 1000)
    with pytest.raises(StartError, match=r"is damaged \(file is not a database\): move it away"):
        Dedupe(path, window=WINDOW, max_keys=1000)
    path.unlink()
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("CREATE TABLE letters (a)")
    with pytest.raises(StartError, match="contains something else"):
        Dedupe(path, window=WINDOW, max_keys=1000)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(f"PRAGMA application_id = {dedupe_module._ID}")
        base.execute("PRAGMA user_version = 9")
    with pytest.raises(StartError, match="newer version"):
        Dedupe(path, window=WINDOW, max_keys=1000)


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"{tmp_path} is not a regular file"):
        Dedupe(tmp_path, window=WINDOW, max_keys=1000)
    with pytest.raises(StartError, match=r"cannot use .*/missing/keys: No such file or directory"):
        Dedupe(tmp_path / "missing" / "keys", window=WINDOW, max_keys=1000)


def test_one_process_a_file(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), "0"], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(StartError, match=f"{path} is in use by another process"):
            Dedupe(path, window=WINDOW, max_keys=1000)
        writer.kill()
    with opened(path, max_keys=20_000) as made:  # the lock went with the process
        assert made.size > 0
        with pytest.raises(StartError, match="is in use"):
            Dedupe(path, window=WINDOW, max_keys=1000)


def test_it_is_private(path: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path) as made:
            made.check_and_reserve(keys(1), 0.0)
            made.commit(keys(1), 0.0)
            assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
                "keys": 0o600, "keys-wal": 0o600,
            }  # fmt: skip
    finally:
        os.umask(before)
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


def test_no_key_stands_in_the_file(path: Path) -> None:
    with opened(path) as made:
        made.check_and_reserve([b"a secret key"], 0.0)
        made.commit([b"a secret key"], 0.0)
    assert b"secret" not in path.read_bytes()


def test_a_full_disk_leaves_the_keys_reserved(path: Path) -> None:
    with opened(path, max_keys=100_000) as made:
        made.check_and_reserve(keys(1), 0.0)
        made.commit(keys(1), 0.0)
        batch = keys(*range(10, 50_000))
        made.check_and_reserve(batch, 0.0)
        made._base.execute(f"PRAGMA max_page_count = {made._base.execute('PRAGMA page_count').fetchone()[0] + 2}")
        with pytest.raises(SinkError, match=f"cannot remember keys in {path}: database or disk is full"):
            made.commit(batch, 0.0)
        assert made.check_and_reserve([*keys(1), batch[0]], 0.0) == [DUPLICATE, PENDING]
        made._base.execute("PRAGMA max_page_count = 100000")
        made.commit(batch, 0.0)
    assert all(known(path, batch, max_keys=100_000))


# ── 10 million ──


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_million_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, whose memory is its alone; two million more than there is room for."""
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from qtools.flow.dedupe import DUPLICATE, NEW, Dedupe

        def memory():
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

        path, most, step = Path(sys.argv[1]), 10_000_000, 1000
        before = memory()
        made = Dedupe(path, window=1e9, max_keys=most)
        spent, last = 0.0, []
        for start in range(0, most + 2_000_000, step):
            batch = [b"message %026d" % number for number in range(start, start + step)]
            begun = time.perf_counter()
            verdicts = made.check_and_reserve(batch, 1.0)
            made.commit(batch, 1.0)
            took = time.perf_counter() - begun
            spent += took
            if start >= most:
                last.append(took)
            assert verdicts.count(NEW) == step
        assert made.size == most and made.evicted == 2_000_000
        disk = sum(file.stat().st_size for file in path.parent.iterdir())
        held = memory() - before
        again = [b"message %026d" % number for number in range(most, most + 500_000)]
        begun = time.perf_counter()
        assert made.check_and_reserve(again, 1.0).count(DUPLICATE) == len(again)
        checks = len(again) / (time.perf_counter() - begun)
        made.close()
        del made
        begun = time.perf_counter()
        made = Dedupe(path, window=1e9, max_keys=most)
        opening = time.perf_counter() - begun
        assert made.size == most
        assert made.check_and_reserve(again[:1000], 1.0).count(DUPLICATE) == 1000
        print((most + 2_000_000) / spent, 2_000_000 / sum(last), checks, held, disk, opening)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "keys")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    all_over, when_full, checks, held, disk, opening = map(float, done.stdout.split())
    with capsys.disabled():
        print(
            f"\n10 million keys: {all_over:,.0f}/s checked and committed, {when_full:,.0f}/s once it is full,"
            f" {checks:,.0f}/s duplicates; {held / 1e6:.0f} MB of memory, {disk / 1e6:.0f} MB on disk,"
            f" opened in {opening:.1f} s"
        )
    assert when_full > 100_000
    assert held < 220e6
    assert disk < 1e9
