"""A broker refuses a batch because of one message: only that one stays refused, the others are published in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qtools.attributes import Attributes
from qtools.engines.kafka.client_errors import INVALID_DIFFERENT_RECORD, INVALID_RECORD, TOO_LARGE, UNKNOWN_TOPIC
from qtools.engines.kafka.publish.refusals import FailedReport, Groups, Parts, collect_refused, publish_in_parts
from qtools.errors import MessageRefused
from qtools.flow.contract import Refused


class Error:
    def __init__(self, code: int) -> None:
        self._code = code

    def code(self) -> int:
        return self._code

    def str(self) -> str:
        return f"error {self._code}"


def collected(groups: Groups, *failed: tuple[int, int, int]) -> tuple[Refused, Parts]:
    """failed: (group, place, code) each, in the order of the reports."""
    refused: Refused = {}
    reports = [FailedReport(group, Error(code), place, None, 0) for group, place, code in failed]
    return refused, collect_refused(reports, groups, refused, "k:9092", "")


GROUPS: Groups = [("a", [b"0", b"1", b"2"]), ("b", [b"3", b"4"])]


def test_one_invalid_message_between_valid_ones_is_not_published_again() -> None:
    refused, suspects = collected(
        GROUPS, (0, 0, INVALID_DIFFERENT_RECORD), (0, 1, INVALID_RECORD), (0, 2, INVALID_DIFFERENT_RECORD)
    )
    assert suspects == [[(0, 0), (0, 2)]]
    assert "a compacted topic needs a key" in str(refused[0, 1])


def test_a_message_may_be_valid_though_its_report_says_that_it_is_not() -> None:
    assert collected(GROUPS, (0, 0, INVALID_RECORD), (0, 1, INVALID_RECORD))[1] == [[(0, 0)], [(0, 1)]]
    assert collected(GROUPS, (0, 1, INVALID_RECORD))[1] == [[(0, 1)]]  # messages of other publishes were in its batch
    assert collected(GROUPS, (0, 1, TOO_LARGE), (1, 0, UNKNOWN_TOPIC))[1] == []
    # The next batch begins after the last valid one, or after the message that follows it.
    assert collected(GROUPS, (0, 0, INVALID_DIFFERENT_RECORD), (0, 1, INVALID_RECORD), (0, 2, INVALID_RECORD))[1] == [
        [(0, 0)], [(0, 1)], [(0, 2)],
    ]  # fmt: skip


def test_reports_of_other_partitions_say_nothing() -> None:
    reports = [
        FailedReport(0, Error(code), place, None, partition)
        for place, code, partition in (
            (0, INVALID_DIFFERENT_RECORD, 0), (1, INVALID_RECORD, 1), (2, INVALID_DIFFERENT_RECORD, 0),
        )
    ]  # fmt: skip
    assert collect_refused(reports, GROUPS, {}, "k:9092", "") == [[(0, 0)], [(0, 1)], [(0, 2)]]


class OldBroker:
    """Refuses a whole publish if a body of it is in `invalid`."""

    def __init__(self, invalid: set[bytes]) -> None:
        self.invalid = invalid
        self.log: list[bytes] = []
        self.publishes = 0

    async def attempt(self, groups: Groups, columns: Sequence[Attributes], refused: Refused) -> Parts:
        self.publishes += 1
        keys = [key for column in columns for key in column.keys or ()]
        bodies = [body for _, some in groups for body in some]
        assert keys == bodies
        if not self.invalid.intersection(bodies):
            self.log += bodies
            return []
        places = [(number, place) for number, (_, some) in enumerate(groups) for place in range(len(some))]
        refused.update(dict.fromkeys(places, MessageRefused("invalid")))
        return [places]


class Broker(OldBroker):
    """Refuses batches, of `size` messages at most: it names two or more invalid ones, and not one, as librdkafka says.
    A publish in one group only."""

    def __init__(self, invalid: set[bytes], size: int) -> None:
        super().__init__(invalid)
        self.size = size

    async def attempt(self, groups: Groups, columns: Sequence[Attributes], refused: Refused) -> Parts:
        self.publishes += 1
        ((_, bodies),) = groups
        reports = []
        for begin in range(0, len(bodies), self.size):
            batch = bodies[begin : begin + self.size]
            bad = self.invalid.intersection(batch)
            for place, body in enumerate(batch, begin):
                if not bad:
                    self.log.append(body)
                else:
                    code = INVALID_RECORD if body in bad or len(bad) == 1 else INVALID_DIFFERENT_RECORD
                    reports.append(FailedReport(0, Error(code), place, None, 0))
        return collect_refused(reports, groups, refused, "k:9092", "")


@pytest.mark.parametrize(
    "invalid", [{b"5"}, {b"0", b"1", b"99"}, {b"7", b"50", b"63"}, set(), {b"%d" % n for n in range(100)}]
)
async def test_only_what_is_refused_alone_stays_refused(invalid: set[bytes]) -> None:
    bodies = [b"%d" % number for number in range(100)]
    groups: Groups = [("a", bodies[:60]), ("b", bodies[60:])]
    refused: Refused = {(0, place): MessageRefused("batch") for place in range(60)}
    refused |= {(1, place): MessageRefused("batch") for place in range(40)}
    broker = OldBroker(invalid)
    columns = [Attributes(keys=some) for _, some in groups]
    await publish_in_parts(groups, columns, [sorted(refused)], refused, broker.attempt)
    assert {groups[number][1][place] for number, place in refused} == invalid
    assert broker.log == [body for body in bodies if body not in invalid]  # each once, in order
    assert broker.publishes <= 1 + 16 * max(1, len(invalid))


@pytest.mark.parametrize("size", [1, 7, 50, 60, 99, 100])
@pytest.mark.parametrize(
    "invalid",
    [{b"5"}, {b"30", b"31", b"99"}, {b"7", b"50", b"63"}, {b"0", b"2", b"99"}, {b"%d" % n for n in range(100)}],
)
async def test_a_publish_over_several_batches(invalid: set[bytes], size: int) -> None:
    bodies = [b"%d" % number for number in range(100)]
    groups: Groups = [("a", bodies)]
    broker, refused = Broker(invalid, size), Refused()
    suspects = await broker.attempt(groups, [Attributes()], refused)
    confirmed = list(broker.log)
    await publish_in_parts(groups, [Attributes()], suspects, refused, broker.attempt)
    assert {bodies[place] for _, place in refused} == invalid
    # Each once. Those that were not confirmed at first come in order, if a part of them is one batch.
    assert sorted(broker.log) == sorted(set(bodies) - invalid)
    if size >= 50:
        assert broker.log[len(confirmed) :] == [b for b in bodies if b not in invalid and b not in confirmed]
    assert broker.publishes <= 2 + 16 * len(invalid)


async def test_scattered_invalid_messages_cost_one_more_publish() -> None:
    bodies = [b"%d" % number for number in range(1000)]
    broker, refused = Broker({body for body in bodies if body.endswith(b"5")}, 1000), Refused()
    suspects = await broker.attempt([("a", bodies)], [Attributes()], refused)
    await publish_in_parts([("a", bodies)], [Attributes()], suspects, refused, broker.attempt)
    assert len(refused) == 100
    assert broker.publishes == 2
