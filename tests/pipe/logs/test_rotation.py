"""Which files of a rotated log are read, and where: every row of the table in rotation.py, without a file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qtools.pipe.logs.rotated_names import base_names, in_rotation_order, without_unfinished
from qtools.pipe.logs.rotation import (
    Candidate,
    Entry,
    Fingerprint,
    IsUncut,
    Matches,
    choose_copies,
    choose_files,
    has_own_contents,
    is_uncut_copy,
    keep_entries,
)


def file(name: str, inode: int, *, size: int = 100, modified: int = 0, is_current: bool = False) -> Candidate:
    compression = "gzip" if name.endswith(".gz") else ""
    return Candidate(name, 1, inode, size, modified or inode, compression, is_current)


def entry(inode: int, offset: int = 50, *, size: int | None = None, modified: int = 0) -> Entry:
    head = Fingerprint(0, 10, f"head of {inode}") if offset else None
    return Entry(1, inode, offset, offset if size is None else size, modified or inode, head)


def contents(**of: int) -> Matches:
    """Says that the file of each name has the contents of the entry with that inode; else inodes say it."""

    def matches(candidate: Candidate, entry: Entry) -> bool:
        known = of.get(candidate.path.replace(".", "_"))
        return (known or candidate.inode) == entry.inode and (
            bool(candidate.compression) or entry.offset <= candidate.size
        )

    return matches


def read(reads: object) -> list[tuple[str, int | None]]:
    return [(each.path, known.offset if known else None) for each, known in reads.files]  # type: ignore[attr-defined]


LOG = file("log", 9, is_current=True)


def test_without_an_entry_only_the_current_file_is_read_and_what_was_named() -> None:
    rotated = [file("log.2", 7), file("log.1", 8)]
    assert read(choose_files([], rotated, LOG, contents())) == [("log", None)]
    assert read(choose_files([], rotated, LOG, contents(), ["log.1"])) == [("log.1", None), ("log", None)]
    assert read(choose_files([], rotated, None, contents())) == []


def test_the_current_file_is_gone_on_with() -> None:
    assert read(choose_files([entry(9)], [file("log.1", 8)], LOG, contents())) == [("log", 50)]


def test_a_renamed_file_is_finished_first_then_all_that_are_newer() -> None:
    rotated = [file("log.3", 6), file("log.2", 7), file("log.1", 8)]
    assert read(choose_files([entry(7)], rotated, LOG, contents())) == [("log.2", 50), ("log.1", None), ("log", None)]


@pytest.mark.parametrize("name", ["log.1", "log.1.gz"])
def test_a_copy_is_known_by_its_contents(name: str) -> None:
    """copytruncate, and a compressed file: the inode is another, or is in use again."""
    rotated = [file(name, 8)]
    of = contents(log=-1, **{name.replace(".", "_"): 9})
    assert read(choose_files([entry(9)], rotated, LOG, of)) == [(name, 50), ("log", None)]


def test_a_reused_inode_is_not_the_file() -> None:
    reads = choose_files([entry(9)], [], LOG, contents(log=-1))
    assert read(reads) == [("log", None)]
    assert reads.missing == [entry(9)]


def test_what_is_not_found_is_missing_and_what_was_written_to_since_is_read() -> None:
    rotated = [file("log.3", 5, modified=10), file("log.2", 7, modified=30), file("log.1", 8, modified=40)]
    reads = choose_files([entry(6, modified=20)], rotated, LOG, contents())
    assert read(reads) == [("log.2", None), ("log.1", None), ("log", None)]
    assert reads.missing == [entry(6, modified=20)]


def test_without_a_current_file_only_what_was_seen_and_not_read_is_missing() -> None:
    assert choose_files([entry(6)], [], None, contents()).missing == []
    assert choose_files([entry(6, size=60)], [], None, contents()).missing == [entry(6, size=60)]


def test_a_file_that_had_nothing_in_it_is_never_missing() -> None:
    blank = entry(6, 0, modified=20)
    rotated = [file("log.2", 5, modified=10), file("log.1", 8, modified=25)]
    reads = choose_files([blank], rotated, LOG, contents())
    assert read(reads) == [("log.1", None), ("log", None)]
    assert reads.missing == []


def test_a_file_that_had_nothing_in_it_is_known_by_its_inode_though_its_times_are_older() -> None:
    """The clock was set back, or a copying program keeps times: what was written since must not look old."""
    blank = entry(8, 0, modified=20)
    rotated = [file("log.3", 5, modified=10), file("log.2", 8, modified=5), file("log.1", 7, modified=6)]
    reads = choose_files([blank], rotated, LOG, contents())
    assert read(reads) == [("log.2", 0), ("log.1", None), ("log", None)]


def test_a_shorter_copy_has_nothing_that_was_not_read() -> None:
    """The copy was made, then the log was read on, then it was cut."""
    rotated = [file("log.1", 8, size=40, modified=99)]
    reads = choose_files([entry(9, modified=50)], rotated, LOG, contents(log=-1, log_1=9))
    assert read(reads) == [("log", None)]
    assert reads.missing == []


def test_an_earlier_file_is_read_on_and_missing_only_when_it_was_not_read() -> None:
    rotated = [file("log.2", 7), file("log.1", 8)]
    assert read(choose_files([entry(7), entry(9)], rotated, LOG, contents())) == [("log.2", 50), ("log", 50)]
    assert choose_files([entry(5), entry(9)], rotated, LOG, contents()).missing == []
    assert choose_files([entry(5, size=70), entry(9)], rotated, LOG, contents()).missing == [entry(5, size=70)]


def uncut(*paths: str) -> IsUncut:
    """Says of these files that they are copies of what the log with the first bytes "now" has."""
    return lambda candidate, current: candidate.path in paths and current.head == b"now"


CUT_LATER = Candidate("log", 1, 9, 100, 98, is_current=True, head=b"now")


def test_a_copy_of_a_log_that_is_not_cut_yet_is_not_read() -> None:
    rotated = [file("log.3", 6), file("log.2", 7), file("log.1", 8, modified=99)]
    for known in (entry(7), entry(5, 0, modified=6)):
        reads = choose_files([known], rotated, CUT_LATER, contents(), (), uncut("log.1"))
        assert [path for path, _ in read(reads)] == ["log.2", "log"]


def test_a_copy_that_has_a_newer_file_behind_it_was_cut() -> None:
    """It looks like what is in the log now, as every line is the same."""
    rotated = [file("log.2", 7, modified=98), file("log.1", 8, modified=99)]
    reads = choose_files([entry(5, 0, modified=6)], rotated, CUT_LATER, contents(), (), uncut("log.2", "log.1"))
    assert [path for path, _ in read(reads)] == ["log.2", "log"]


def test_a_copy_with_the_inode_of_an_empty_file_of_before_is_not_read_before_the_cut() -> None:
    """The empty file was compressed, and its inode was used again."""
    rotated = [file("log.3", 6), file("log.2", 7), file("log.1", 8, modified=99)]
    known = [entry(8, 0), entry(7), entry(9)]
    reads = choose_files(known, rotated, CUT_LATER, contents(), (), uncut("log.1"))
    assert read(reads) == [("log.2", 50), ("log", 50)]
    reads = choose_files(known, rotated, CUT_LATER, contents())
    assert read(reads) == [("log.2", 50), ("log.1", 0), ("log", 50)]  # the oldest first, whichever entry is older


@pytest.mark.parametrize(
    ("head", "own"),
    [
        (b"2026-11-29 ok\n2026-11-30 ok\n", True),
        (b"2026-11-29 ok\n2026-11-30 o", True),
        (b"2026-11-29 ok\n2026-11-29 ok\n", False),
        (b"2026-11-29 o", False),
        (b"ok 1\nok 2\n", False),
        (b"", False),
    ],
)
def test_contents_that_no_other_file_has_are_those_of_the_log(head: bytes, own: bool) -> None:
    assert has_own_contents(head) is own
    copy = file("log.1", 8, modified=30)
    log = Candidate("log", 1, 9, 100, 31, is_current=True, head=head)
    assert is_uncut_copy(copy, log) is own
    assert is_uncut_copy(copy, replace(log, modified=29))  # to cut it would have made its time later than the copy's
    assert not is_uncut_copy(copy, replace(log, modified=29, size=99))  # a file only grows until it is cut


def same(candidate: Candidate, entry: Entry) -> bool:
    """Every line is the same in all files."""
    return bool(candidate.compression) or candidate.size >= entry.offset


@pytest.mark.parametrize("name", ["log.1", "log.1.gz"])
@pytest.mark.parametrize("inode", [9, 5])
def test_a_copy_made_since_is_the_file_where_all_files_have_the_same_contents(name: str, inode: int) -> None:
    """The current file was cut, or is another, and was written to after the copy."""
    rotated = [file("log.2", 7, modified=10), file(name, 8, modified=30)]
    current = file("log", inode, modified=40, is_current=True)
    assert read(choose_files([entry(7), entry(9, modified=30)], rotated, current, same))[-2:] == [
        (name, 50), ("log", None),
    ]  # fmt: skip


def test_before_the_cut_a_plain_copy_is_not_the_file() -> None:
    rotated = [file("log.1", 8, modified=31)]
    current = file("log", 9, modified=30, is_current=True)
    assert read(choose_files([entry(9, modified=30)], rotated, current, same)) == [("log", 50)]
    assert read(choose_files([entry(9, modified=30)], rotated, current, same, is_cut=True)) == [
        ("log.1", 50), ("log", None),
    ]  # fmt: skip


def test_another_current_file_with_the_same_contents_is_begun_anew() -> None:
    reads = choose_files([entry(9)], [], file("log", 5, modified=40, is_current=True), same)
    assert (read(reads), reads.missing, reads.is_doubtful) == ([("log", None)], [], True)


def copies(rotated: list[Candidate], *, is_current: bool = True, known: str = "", same: str = "") -> list[str]:
    """What is read before the file with inode 9, which was empty at 20 and begins with "now" since."""
    chosen, _ = choose(rotated, is_current, known, same)
    return [each.path for each in chosen]


def choose(
    rotated: list[Candidate], is_current: bool = True, known: str = "", same: str = ""
) -> tuple[list[Candidate], int]:
    return choose_copies(
        entry(9, 0, modified=20), replace(CUT_LATER, is_current=is_current), rotated,
        is_known=lambda each: each.path == known,
        is_same=lambda each, head: each.path == same and head == b"now",
        is_uncut=uncut("log.now", "log.like"),
    )  # fmt: skip


def test_before_a_file_that_was_empty_come_the_copies_made_since() -> None:
    old, one, two = file("log.3", 6, modified=20), file("log.2.gz", 7, modified=21), file("log.1", 8, modified=22)
    assert choose([old, one, two]) == ([one, two], 22)
    assert copies([old, one, two], known="log.2.gz") == ["log.1"]
    assert copies([old, one, file("log.1", 8, modified=22, size=0)]) == ["log.2.gz"]
    assert choose([one, file("log.now", 8, modified=22)]) == ([one], 21)


def test_a_copy_that_was_left_out_is_asked_for_again() -> None:
    """Its log was cut meanwhile: only the newest is left out, and nothing of a later time hides it."""
    like, one, now = file("log.like", 7, modified=21), file("log.2", 6, modified=30), file("log.now", 8, modified=22)
    assert choose([like, now]) == ([like], 21)
    assert choose([one, now]) == ([one], 21)  # the clock was set back
    assert choose([now]) == ([], 20)
    assert choose([like, file("log.1", 5, modified=23)])[0] == [like, file("log.1", 5, modified=23)]


def test_a_file_that_was_empty_and_is_renamed_has_only_older_ones_before_it() -> None:
    one, two = file("log.2", 7, modified=21), file("log.1", 8, modified=23)
    itself = file("log.9", 9, modified=22)
    assert copies([one, itself, two], is_current=False) == ["log.2"]
    packed = file("log.9.gz", 5, modified=22)
    assert copies([one, packed, two], is_current=False, same="log.9.gz") == ["log.2"]
    assert copies([one, two], is_current=False) == []  # it is found nowhere: nothing is known to be older


def test_a_compressed_file_that_looks_like_the_current_one_is_another() -> None:
    packed, one = file("log.2.gz", 5, modified=22), file("log.1", 8, modified=23)
    assert copies([packed, one], same="log.2.gz") == ["log.2.gz", "log.1"]


def test_the_inode_of_a_file_that_had_nothing_in_it_may_be_another_files_by_now() -> None:
    rotated = [file("log.1", 7)]
    reads = choose_files([entry(7, 0), entry(7), entry(9)], rotated, LOG, contents())
    assert read(reads) == [("log.1", 50), ("log", 50)]


def test_entries_that_were_read_are_forgotten_in_time_and_others_never() -> None:
    entries = [entry(1), entry(2, size=80), *(entry(each) for each in range(3, 8))]
    assert [each.inode for each in keep_entries(entries)] == [2, 4, 5, 6, 7]
    assert [each.inode for each in keep_entries(entries, [entries[2]])] == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("app.log.1", ["app.log"]),
        ("app.log.12.gz", ["app.log"]),
        ("app.log-20261128", ["app.log"]),
        ("app.log-20261128.zst", ["app.log"]),
        ("app.log.2026-11-28T10:00", ["app.log"]),
        ("app-20261128.log", ["app.log"]),
        ("app.1.log", ["app.log"]),
        ("app.log", []),
        ("worker-1.log", []),  # beside worker.log it is a log of its own
        ("app.log.old", []),
        ("app.log.gz", []),
    ],
)
def test_the_log_that_a_name_belongs_to(name: str, bases: list[str]) -> None:
    assert base_names(name) == bases


@pytest.mark.parametrize(
    "names",
    [
        ["log.10", "log.9.gz", "log.2", "log.1"],
        ["log-20251231", "log-20260101.gz", "log-20260102"],
        ["log.2026-01-01", "log.2026-01-02", "log.2026-01-10"],
    ],
)
def test_the_order_is_in_the_names(names: list[str]) -> None:
    files = [file(name, inode, modified=5) for inode, name in enumerate(names, 1)]
    assert [each.path for each in in_rotation_order(files[::-1])] == names


def test_the_order_is_in_the_times_where_the_names_do_not_tell() -> None:
    mixed = [file("log.old", 1, modified=3), file("log.1", 2, modified=2), file("log-20260101", 3, modified=1)]
    assert [each.inode for each in in_rotation_order(mixed)] == [3, 2, 1]
    counting_up = [file("log.1", 1, modified=1), file("log.2", 2, modified=2), file("log.3", 3, modified=3)]
    assert [each.inode for each in in_rotation_order(counting_up)] == [1, 2, 3]


def test_a_compressed_file_beside_its_plain_one_is_not_finished() -> None:
    files = [file("log.2.gz", 1), file("log.1", 2), file("log.1.gz", 3)]
    assert [each.path for each in without_unfinished(files)] == ["log.2.gz", "log.1"]
