"""Names by template: nsq_to_file's fields, strftime, a revision; partitions by what time is found."""

from __future__ import annotations

import pytest

from qtools.errors import UsageError
from qtools.times import parse_time
from qtools.to_file.archive.layout import Layout, fill_rev

S = 1_000_000_000
NOW = 1_795_420_800.0 + 754  # 2026-11-23 08:12:34 UTC


def name(template: str, suffix: str = "", **settings: object) -> str:
    made = Layout(template, suffix=suffix, host="web 1", pid=77, **settings)  # type: ignore[arg-type]
    return made.name("events", "", NOW)


@pytest.mark.parametrize(
    ("template", "suffix", "made"),
    [
        ("<TOPIC>.<HOST><REV>.<DATETIME>.log", "", "events.web_1<REV>.2026-11-23_08.log"),
        ("<TOPIC>.<HOST><REV>.<DATETIME>.log", ".gz", "events.web_1<REV>.2026-11-23_08.log.gz"),
        ("<TOPIC>.log.gz", ".gz", "events<REV>.log.gz"),
        ("<TOPIC>.log", "", "events<REV>.log"),
        ("<TOPIC>", "", "events<REV>"),
        ("<TOPIC>.<DATETIME>", ".zst", "events.2026-11-23_08<REV>.zst"),
        ("%Y/%m/%d/<TOPIC>-<PID>-%H%M.jsonl", "", "2026/11/23/events-77-0812<REV>.jsonl"),
        ("v1.2/<TOPIC>", "", "v1.2/events<REV>"),
    ],
)
def test_names(template: str, suffix: str, made: str) -> None:
    assert name(template, suffix) == made


def test_a_revision_counts_up() -> None:
    assert [fill_rev("a<REV>.log", rev) for rev in (0, 1, 1234567)] == ["a.log", "a-000001.log", "a-1234567.log"]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("/abs/<TOPIC>", "leads out"),
        ("../<TOPIC>", "leads out"),
        ("a/../../<TOPIC>", "leads out"),
        ("a//<TOPIC>", "without a name"),
        ("a/", "without a name"),
        (".hidden/<TOPIC>", "hidden"),
        ("<NAME>", "<NAME>; known are <TOPIC>"),
        ("<REV><REV>", "more than once"),
        ("x" * 300, "too long"),
        ("d/" * 2000 + "x", "too long"),
        ("a\n", "control"),
    ],
)
def test_names_that_cannot_be(template: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        name(template)


def test_a_host_or_partition_cannot_lead_out_either() -> None:
    assert Layout("a-<HOST>", host="../../etc").name("t", "", NOW) == "a-.._.._etc<REV>"
    with pytest.raises(UsageError, match="leads out"):
        Layout("a", partition="../%Y")


@pytest.mark.parametrize("topic", ["..", ".", "...", ".hidden"])
def test_a_topic_cannot_lead_out(topic: str) -> None:
    assert Layout("<TOPIC>/x").name(topic, "", NOW) == f"_{topic}/x<REV>"


def test_partitions() -> None:
    layout = Layout("<TOPIC>", partition="dt=%Y-%m-%d/hour=%H")
    assert layout.partition(int(NOW * S)) == "dt=2026-11-23/hour=08"
    assert layout.partition(int(NOW + 59 * 60) * S) == "dt=2026-11-23/hour=09"
    assert layout.name("t", layout.partition(int(NOW * S)), NOW) == "dt=2026-11-23/hour=08/t<REV>"
    by_second = Layout("<TOPIC>", partition="%H%M%S")
    assert [by_second.partition(int((NOW + more) * S)) for more in (0, 0.5, 1)] == ["081234", "081234", "081235"]


@pytest.mark.parametrize(
    ("text", "partition"),
    [
        ("0001-01-01T00:00:00Z", "dt=0001-01-01/hour=00"),
        ("0999-12-31T23:59:59Z", "dt=0999-12-31/hour=23"),
        ("1969-12-31T23:59:59.999999999Z", "dt=1969-12-31/hour=23"),
        ("2026-11-23T07:59:59.999999999Z", "dt=2026-11-23/hour=07"),
        ("2016-12-31T23:59:60Z", "dt=2016-12-31/hour=23"),
        ("5138-11-16T09:46:40Z", "dt=5138-11-16/hour=09"),
        ("9999-12-31T23:59:59.999999999Z", "dt=9999-12-31/hour=23"),
        ("9999-12-31T23:59:59-01:00", "dt=10000-01-01/hour=00"),
    ],
)
def test_dates_of_every_year(text: str, partition: str) -> None:
    for template in ("dt=%Y-%m-%d/hour=%H", "dt=%F/hour=%H"):
        assert Layout("<TOPIC>", partition=template).partition(parse_time(text)) == partition
    assert Layout("<TOPIC>", partition="%%Y%%F%Y").partition(parse_time("0001-01-01")) == "%Y%F0001"


def test_many_times_do_not_pile_up() -> None:
    layout = Layout("<TOPIC>", partition="%Y-%j-%H%M")
    found: set[str] = set()
    for start in range(0, 30_000, 500):  # a batch each
        layout.forget_partitions()
        found.update(layout.partition(60 * minute * S) for minute in range(start, start + 500))
        assert layout.time_in(layout.partition(60 * start * S)) == 60 * start
        assert len(layout._partitions) <= 10_500
    assert len(found) == 30_000
