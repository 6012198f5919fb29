"""A real Kafka for the tests of this folder; without Java and Maven they are skipped."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.kafka import KafkaNode, make_cluster, shared_node, why_not

from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a server that all tests share: each has topics and groups of its own."""
    if reason := why_not():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    return shared_node((base.parent if is_worker else base) / "kafka", os.getppid() if is_worker else os.getpid())


@pytest.fixture
def make_kafka(tmp_path: Path) -> Iterator[Callable[..., list[KafkaNode]]]:
    """Makes clusters for this test alone, which are started; they may be killed."""
    if reason := why_not():
        pytest.skip(reason)
    made: list[KafkaNode] = []

    def make(nodes: int = 1, settings: dict[str, str] | None = None) -> list[KafkaNode]:
        cluster = make_cluster(tmp_path / f"kafka-{len(made)}", nodes, settings)
        made.extend(cluster)
        for node in cluster:
            node.start()
        return cluster

    yield make
    for node in made:
        node.kill()


@pytest.fixture
def engine(kafka: str) -> KafkaEngine:
    return KafkaEngine(KafkaSettings((kafka,)))


@pytest.fixture
def topic() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"
