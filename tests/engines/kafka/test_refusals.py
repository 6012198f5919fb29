"""A broker refuses a batch because of one message: only that one stays refused, the others are published in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qtools.attributes import Attributes
from qtools.engines.kafka.client_errors import INVALID_DIFFERENT_RECORD, INVALID_RECORD, TOO_LARGE, UNKNOWN_TOPIC
from qtools.engines.kafka.publish.refusals import FailedReport, Groups, Place, collect_refused, publish_in_parts
from qtools.errors import MessageRefused
from qtools.flow.contract import Refused


class Error:
    def __init__(self, code: int) -> None:
        self._code = code

    def code(self) -> int:
        return self._code

    def str(self) -> str:
        return f"error {self._code}"


def collected(groups: Groups, *failed: tuple[int, int, int]) -> tuple[Refused, list[Place]]:
    """failed: (group, place, code) each."""
    refused: Refused = {}
    reports = [FailedReport(group, Error(code), place, None) for group, place, code in failed]
    return refused, collect_refused(reports, groups, refused, "k:9092", "")


GROUPS: Groups = [("a", [b"0", b"1", b"2"]), ("b", [b"3", b"4"])]


def test_a_broker_that_names_the_invalid_message() -> None:
    refused, suspects = collected(
        GROUPS, (0, 2, INVALID_DIFFERENT_RECORD), (0, 0, INVALID_DIFFERENT_RECORD), (0, 1, INVALID_RECORD)
    )
    assert suspects == [(0, 0), (0, 2)]
    assert "a compacted topic needs a key" in str(refused[0, 1])


def test_a_broker_that_does_not_name_it() -> None:
    assert collected(GROUPS, (0, 1, INVALID_RECORD), (0, 0, INVALID_RECORD))[1] == [(0, 0), (0, 1)]
    assert collected(GROUPS, (0, 1, INVALID_RECORD))[1] == []  # it was alone
    assert collected(GROUPS, (0, 1, TOO_LARGE), (1, 0, UNKNOWN_TOPIC))[1] == []


class OldBroker:
    """Refuses a whole publish if a body of it is in `invalid`."""

    def __init__(self, invalid: set[bytes]) -> None:
        self.invalid = invalid
        self.log: list[bytes] = []
        self.publishes = 0

    async def attempt(self, groups: Groups, columns: Sequence[Attributes], refused: Refused) -> list[Place]:
        self.publishes += 1
        keys = [key for column in columns for key in column.keys or ()]
        bodies = [body for _, some in groups for body in some]
        assert keys == bodies
        if not self.invalid.intersection(bodies):
            self.log += bodies
            return []
        places = [(number, place) for number, (_, some) in enumerate(groups) for place in range(len(some))]
        refused.update(dict.fromkeys(places, MessageRefused("invalid")))
        return places


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
    await publish_in_parts(groups, columns, sorted(refused), refused, broker.attempt)
    assert {groups[number][1][place] for number, place in refused} == invalid
    assert broker.log == [body for body in bodies if body not in invalid]  # each once, in order
    assert broker.publishes <= 1 + 16 * max(1, len(invalid))
