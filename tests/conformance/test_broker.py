"""q-broker answers what nsqd 1.3.0 answered, in every recorded conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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


KEEPING = {"memory": ["--memory"], "full": ["--sync=full"], "normal": ["--sync=normal"], "off": ["--sync=off"]}


@pytest.fixture(scope="module")
def differences() -> Iterator[dict[tuple[str, str], list[str]]]:
    """What each case found, by how the broker keeps messages. They mostly wait for silence, so all run together."""
    # The long ones first, so that none is left alone at the end.
    order = sorted(CASES, key=lambda case: -sum(step.get("wait", step.get("quiet", 0)) for step in case["steps"]))
    with ExitStack() as stack:
        brokers = {name: stack.enter_context(running(*flags)) for name, flags in KEEPING.items()}
        asked = [(case, name) for case in order for name in KEEPING]
        with ThreadPoolExecutor(16 * len(KEEPING)) as pool:
            found = pool.map(lambda one: play(one[0], brokers[one[1]].tcp, brokers[one[1]].http), asked)
            told = {(name, case["title"]): differs for (case, name), differs in zip(asked, found, strict=True)}
        for broker in brokers.values():
            assert broker.process.poll() is None
            assert not [line for line in broker.log if "Traceback" in line or "internal error" in line]
        yield told


def test_all_recordings_are_here() -> None:
    assert len(CASES) == len({case["title"] for case in CASES}) == 132


@pytest.mark.parametrize("keeping", KEEPING)
@pytest.mark.parametrize("title", [case["title"] for case in CASES])
def test_answers_as_nsqd_does(title: str, keeping: str, differences: dict[tuple[str, str], list[str]]) -> None:
    assert differences[keeping, title] == []


def test_a_different_answer_is_noticed() -> None:
    case = next(case for case in CASES if case["title"] == "tcp: fin twice")
    text = json.dumps(case).replace("ID not in flight", "something else")
    with running() as broker:
        assert len(play(json.loads(text), broker.tcp, broker.http)) == 1
