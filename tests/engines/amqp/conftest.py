"""A RabbitMQ that the tests of this folder share: each has a topic of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.rabbitmq import why_not

from tests.engines.clusters.cluster import Cluster


@pytest.fixture(scope="session")
def _rabbitmq(tmp_path_factory: pytest.TempPathFactory, _nothing_is_left_behind: None) -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    from tests.engines.clusters.rabbitmq import RabbitCluster

    made = RabbitCluster(tmp_path_factory.mktemp("rabbitmq"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def rabbitmq(_rabbitmq: Cluster) -> Cluster:
    return _rabbitmq
