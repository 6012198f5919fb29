"""Which messages of a batch were refused, by what a publisher says of its groups."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qtools.errors import BrokerError, MessageRefused, QtoolsError
from qtools.flow.contract import GroupAttributes, Refused
from qtools.flow.topic_sink import publish_groups

BIG = MessageRefused("it is too large")
CLOSED = BrokerError("E_UNAUTHORIZED")
GROUPS = [("users", [b"a", b"c"]), ("all", [b"a", b"b", b"c"])]
PLACES = [[0, 2], range(3)]


class Publisher:
    """Refuses what it is given."""

    def __init__(self, refused: Refused) -> None:
        self.refused = refused
        self.published: Sequence[tuple[str, Sequence[bytes]]] = []

    async def publish(
        self, groups: Sequence[tuple[str, Sequence[bytes]]], *, attributes: GroupAttributes | None = None
    ) -> Refused:
        self.published = groups
        return self.refused

    async def close(self) -> None:
        """There is nothing to close."""


async def test_everything_is_published_at_once() -> None:
    publisher = Publisher({})
    assert await publish_groups(publisher, GROUPS, PLACES) == {}
    assert publisher.published is GROUPS


async def test_refused_messages_are_named_by_their_place_in_the_batch() -> None:
    refused = await publish_groups(Publisher({(1, 2): BIG, (0, 0): BIG, (0, 1): BIG}), GROUPS, PLACES)
    assert list(refused.items()) == [(0, ("users", BIG)), (2, ("all", BIG))]


@pytest.mark.parametrize("fixed", [None, ("users",), ("users", "all")])
async def test_a_refused_topic_that_no_message_has_chosen_is_raised(fixed: tuple[str, ...] | None) -> None:
    with pytest.raises(BrokerError):
        await publish_groups(Publisher({(1, 2): BIG, (0, 0): CLOSED}), GROUPS, PLACES, fixed=fixed)


async def test_a_refused_topic_that_messages_have_chosen_is_theirs() -> None:
    all_of_it: dict[tuple[int, int], QtoolsError] = {(0, 0): CLOSED, (0, 1): CLOSED}
    refused = await publish_groups(Publisher(all_of_it), GROUPS, PLACES, fixed=("all",))
    assert refused == {0: ("users", CLOSED), 2: ("users", CLOSED)}
