"""A server for what only Redis has: Valkey's, which comes with the tests, and Redis's where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.redis import REDIS, VALKEY, why_not

from tests.engines.clusters.redis import RedisCluster, ValkeyCluster

KINDS = {VALKEY: ValkeyCluster, REDIS: RedisCluster}


def start(kind: str, room: Path, flags: list[str] | None = None) -> RedisCluster:
    if reason := why_not(kind):
        pytest.skip(reason)
    made = KINDS[kind](room)
    if flags is not None:
        made.server.flags = flags
    made.start()
    return made


@pytest.fixture(scope="module", params=list(KINDS))
def redis(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _nothing_is_left_behind: None
) -> Iterator[RedisCluster]:
    """A server that the tests of a file share."""
    made = start(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


@pytest.fixture
def valkey(tmp_path: Path, _nothing_is_left_behind: None) -> Iterator[RedisCluster]:
    """A server for one test alone."""
    made = start(VALKEY, tmp_path / "server")
    yield made
    made.close()
