"""The file of the known keys: kills, power failures, damage, and ten million keys."""

from __future__ import annotations

import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

from qtools.errors import SinkError, StartError
from qtools.flow import dedupe as dedupe_module
from qtools.flow.dedupe import DUPLICATE, PENDING, Dedupe
from tests.flow.dedupes import WINDOW, keys, known, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_file_system_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with opened(path) as made:
        made.check_and_reserve(keys(1), 1.0)
        made.commit(keys(1), 1.0)
    assert known(path, keys(1, 2)) == [True, False]
    assert [each for each in os.listdir(path.parent) if each.endswith(".new")] == []


# ── kills, power failures, damage ─────────────────────────────────────────────────────────────────


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
    with pytest.raises(StartError, match="is not a file of keys of --dedupe: name another file"):
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


# ── 10 million ────────────────────────────────────────────────────────────────────────────────────


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
