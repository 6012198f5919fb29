"""A real Kafka for the tests of this folder; without Java and Maven they are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.kafka import KafkaNode, make_cluster, start_cluster, why_not

from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings


@pytest.fixture
def make_kafka(tmp_path: Path) -> Iterator[Callable[..., list[KafkaNode]]]:
    """Makes clusters for this test alone, which are started; they may be killed."""
    if reason := why_not():
        pytest.skip(reason)
    made: list[KafkaNode] = []

    def make(nodes: int = 1, settings: dict[str, str] | None = None) -> list[KafkaNode]:
        cluster = make_cluster(tmp_path / f"kafka-{len(made)}", nodes, settings)
        made.extend(cluster)
        start_cluster(cluster)
        return cluster

    yield make
    for node in made:
        node.kill()


@pytest.fixture
def engine(kafka: str) -> KafkaEngine:
    return KafkaEngine(KafkaSettings((kafka,)))
