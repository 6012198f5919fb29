"""Fixtures for tests that run the real programs against real brokers; what they are made of is in harness/.

`broker` is q-broker in one run of a test and nsqd in the other. It is shared by many tests: each has a `topic`
of its own, and whoever stops or floods a broker takes one of his own from `make_broker`.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.brokers import NSQD, Q_BROKER, Broker, Lookupd, nsqd_binary, nsqlookupd_binary
from harness.certificates import Certificates
from harness.fork_server import ForkServer
from harness.proxy import Proxy
from harness.registry import Registry
from harness.seaweed import Seaweed, weed_binary
from harness.shell import IS_MEASURED, MARK, SESSION, Shell, base_environment, marked
from harness.terminal import Terminal
from harness.waiting import wait_until
from hypothesis import HealthCheck, settings

from qtools.cli import logs

KINDS = [Q_BROKER, pytest.param(NSQD, marks=pytest.mark.nsqd)]
NO_NSQD = "no nsqd on PATH, nor named by QTOOLS_NSQD_BIN"
NO_NSQLOOKUPD = "no nsqlookupd on PATH, beside nsqd, nor named by QTOOLS_NSQLOOKUPD_BIN"
NO_SEAWEED = "no weed (SeaweedFS) beside this Python nor on PATH"

EXECUTES = "QTOOLS_TESTS_EXECUTE" in os.environ  # set by `make prove`: what is marked `forks` executes its programs

MakeBroker = Callable[..., Broker]


# A test that shares two cores with others may be held up between any two of its lines.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


def pytest_configure() -> None:
    """A shell without job control starts background jobs with SIGINT ignored, and what they start inherits that: a test
    that interrupts a shell would wait for ever. Programs here start as they do in a terminal."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # the collection of the tests makes 400,000 objects that stay, and no garbage worth searching for


def pytest_collection_finish() -> None:
    """Collect garbage again, but only of what the tests themselves make: a test that calls gc.collect() searched all
    objects of the collection otherwise, which takes 0.15 s."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if nsqd_binary() is None:
        for item in items:
            if item.get_closest_marker("nsqd"):
                item.add_marker(pytest.mark.skip(reason=NO_NSQD))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason to skip tests, however many it keeps from running."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"SKIPPED {count}: {reason}")


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    wait_until(lambda: not marked(SESSION), 5, lambda: f"processes {marked(SESSION)} were left behind")


@pytest.fixture(autouse=True)
def _logging_is_as_before() -> Iterator[None]:
    """Undo what a test's call of logs.set_up has left: caplog gets each record twice where a logger did not propagate
    when the test began, and does by the time of the record."""
    last_resort = logging.lastResort
    yield
    logger = logging.getLogger("qtools")
    if not logger.propagate:
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
        logging.lastResort = last_resort
        logs._talk = None


@pytest.fixture(scope="session")
def fork_server(_nothing_is_left_behind: None) -> Iterator[ForkServer]:
    made = ForkServer(base_environment() | {MARK: SESSION})
    yield made
    made.close()


@pytest.fixture
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    """Runs programs in a home of its own."""
    forks = request.node.get_closest_marker("forks") and not IS_MEASURED and not EXECUTES
    made = Shell(request.getfixturevalue("fork_server") if forks else None)
    yield made
    made.close()


@pytest.fixture
def topic() -> str:
    """A topic that nobody else uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session", params=KINDS)
def broker_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="session")
def broker(
    broker_kind: str, tmp_path_factory: pytest.TempPathFactory, _nothing_is_left_behind: None
) -> Iterator[Broker]:
    """A broker that many tests use: leave it as it was."""
    made = Broker(broker_kind, tmp_path_factory.mktemp(broker_kind))
    made.start()
    yield made
    made.close()


@pytest.fixture
def make_broker(broker_kind: str, tmp_path: Path) -> Iterator[MakeBroker]:
    """Starts brokers for this test alone: make_broker(*flags)."""
    brokers: list[Broker] = []

    def make(*flags: str) -> Broker:
        brokers.append(Broker(broker_kind, tmp_path / f"broker-{len(brokers)}", flags))
        brokers[-1].start()
        return brokers[-1]

    yield make
    for made in brokers:
        made.close()


@pytest.fixture
def make_lookupd(tmp_path: Path) -> Iterator[Callable[[], Lookupd]]:
    """Starts nsqlookupds for this test."""
    if nsqlookupd_binary() is None:
        pytest.skip(NO_NSQLOOKUPD)
    lookupds: list[Lookupd] = []

    def make() -> Lookupd:
        lookupds.append(Lookupd(tmp_path / f"lookupd-{len(lookupds)}"))
        lookupds[-1].start()
        return lookupds[-1]

    yield make
    for made in lookupds:
        made.close()


@pytest.fixture
def make_proxy() -> Iterator[Callable[[Broker], Proxy]]:
    """Puts a proxy before a broker's TCP port."""
    proxies: list[Proxy] = []

    def make(target: Broker) -> Proxy:
        proxies.append(Proxy(target.port))
        return proxies[-1]

    yield make
    for made in proxies:
        made.close()


@pytest.fixture(scope="session")
def seaweed(_nothing_is_left_behind: None) -> Iterator[Seaweed]:
    """An S3 server that many tests use, each with a bucket of its own."""
    if weed_binary() is None:
        pytest.skip(NO_SEAWEED)
    made = Seaweed()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def own_seaweed(_nothing_is_left_behind: None) -> Iterator[Seaweed]:
    """An S3 server for this test alone: it may be killed."""
    if weed_binary() is None:
        pytest.skip(NO_SEAWEED)
    made = Seaweed()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A schema registry."""
    made = Registry()
    yield made
    made.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))
