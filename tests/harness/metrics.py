"""The metrics of a running program, read as Prometheus reads them. In: a program, started WITH_METRICS. Out: values."""

from __future__ import annotations

import re

import httpx
from prometheus_client.parser import text_string_to_metric_families

from harness.shell import Running
from harness.waiting import wait_until

Read = dict[str, float]

WITH_METRICS = ("--metrics-address", "0")


def where(running: Running) -> str:
    """The base of its URLs, as it told."""
    running.wait_err("/metrics")
    found = re.search(r"metrics at (http://127\.0\.0\.1:\d+)/metrics", running.err)
    assert found is not None, running.err
    return found[1]


def scrape(base: str) -> Read:
    """Name and label values → value."""
    answer = httpx.get(f"{base}/metrics", timeout=10)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def wait_value(base: str, name: str, value: float) -> Read:
    return wait_until(
        lambda: (found := scrape(base)).get(name) == value and found,
        what=lambda: f"{name} {value}: {scrape(base)}",
    )


def wait_confirmed(pipe: Running, count: int) -> None:
    """Until q-pipe has read the broker's OK for `count` messages: the broker counts them before its OK arrives."""
    wait_value(where(pipe), "qtools_pipe_published_total", count)
