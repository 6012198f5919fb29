"""Which topics a pattern adds."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qtools.names import Subscription
from qtools.to_file.topic_watcher import TopicWatcher


async def test_a_topic_that_is_too_long_for_a_file_name_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    long = "t" * 249

    async def look() -> set[str]:
        return {"t", long, "other"}

    source = SimpleNamespace(subscriptions=[])
    topics = cast("Any", SimpleNamespace(look=look))
    watcher = TopicWatcher(topics, re.compile("^t"), "own", 1.0)
    for _ in range(2):
        await watcher.begin(cast("Any", source), waits=False)
    assert source.subscriptions == [Subscription("t", "own")]
    assert caplog.text.count(f"topic {long} is not archived: it is too long for the name of a file") == 1
