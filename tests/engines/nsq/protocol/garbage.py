"""Streams of bytes for the tests with garbage: valid ones, and what becomes of them when they are changed."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LONGEST = timedelta(seconds=5)  # nothing hangs


def explore(
    examples: int, **strategies: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A property as two tests in one: a few examples everywhere, fifty times as many where slow tests run."""

    def both(check: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("times", [1, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
        def test(times: int) -> None:
            seldom = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
            runs = settings(max_examples=examples * times, deadline=LONGEST, suppress_health_check=seldom)
            runs(given(**strategies)(check))()

        test.__doc__ = check.__doc__
        return test

    return both


def check_fit_to_show(error: Exception) -> None:
    """One line, not too long, that can be printed."""
    text = str(error)
    assert text.isprintable()
    assert 0 < len(text) < 400
    text.encode()


changed = st.sampled_from(["set", "insert", "delete", "truncate"])


edits = st.lists(st.tuples(changed, st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=4)


places = st.lists(st.integers(1, 1200), max_size=12)


def edited(stream: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for what, place, value in changes:
        place %= len(stream) + 1
        match what:
            case "set":
                stream = stream[:place] + value + stream[place + len(value) :]
            case "insert":
                stream = stream[:place] + value + stream[place:]
            case "delete":
                stream = stream[:place] + stream[place + len(value) :]
            case "truncate":
                stream = stream[:place]
    return stream


def spoilt(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Streams that are right, streams that were right, and noise."""
    return st.one_of(
        st.builds(edited, valid, edits),
        st.builds(edited, valid, edits),
        st.builds(bytes.__add__, valid, st.binary(max_size=60)),
        st.binary(max_size=200),
    )


@cache
def authority() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A broker's context and a client's that trusts it."""
    ca = trustme.CA()
    broker, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.issue_cert("broker.example").configure_cert(broker)
    ca.configure_trust(client)
    return broker, client
