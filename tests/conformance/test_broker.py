"""q-broker answers what nsqd 1.3.0 answered, in every recorded conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from broker.running import running

from .replay import Plain, play

HERE = Path(__file__).parent
CASES: list[Plain] = [
    case | {"title": f"{file}: {case['name']}"}
    for file in ("tcp", "http")
    for case in json.loads((HERE / f"{file}.json").read_text())["cases"]
]


@pytest.fixture(scope="module")
def differences() -> Iterator[dict[str, list[str]]]:
    """What each case found. They mostly wait for silence, so they run at the same time."""
    with running() as broker:
        tcp, http = broker.tcp, broker.http
        # The long ones first, so that none is left alone at the end.
        order = sorted(CASES, key=lambda case: -sum(step.get("wait", step.get("quiet", 0)) for step in case["steps"]))
        with ThreadPoolExecutor(16) as pool:
            found = dict(
                zip((case["title"] for case in order), pool.map(lambda c: play(c, tcp, http), order), strict=True)
            )
        assert broker.process.poll() is None
        assert not [line for line in broker.log if "Traceback" in line or "internal error" in line]
        yield found


def test_all_recordings_are_here() -> None:
    assert len(CASES) == len({case["title"] for case in CASES}) == 132


@pytest.mark.parametrize("title", [case["title"] for case in CASES])
def test_answers_as_nsqd_does(title: str, differences: dict[str, list[str]]) -> None:
    assert differences[title] == []


def test_a_different_answer_is_noticed() -> None:
    case = next(case for case in CASES if case["title"] == "tcp: fin twice")
    text = json.dumps(case).replace("ID not in flight", "something else")
    with running() as broker:
        assert len(play(json.loads(text), broker.tcp, broker.http)) == 1
