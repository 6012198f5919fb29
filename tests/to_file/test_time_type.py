"""Points in time as people write them."""

from __future__ import annotations

import pytest

from qtools.to_file.time_type import parse_moment

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-11-23", 1795392000 * S),
        ("2026-11-23T08:00", 1795420800 * S),
        ("2026-11-23 08:00:00.5Z", 1795420800 * S + S // 2),
        ("2026-11-23T09:00:00+01:00", 1795420800 * S),
        ("1795420800", 1795420800 * S),
        ("1795420800123", 1795420800123 * S // 1000),
        ("1795420800123456", 1795420800123456 * 1000),
        ("1795420800123456789", 1795420800123456789),
        ("0", 0),
        ("1969-12-31T23:59:59", -S),
    ],
)
def test_it_is_in_ns(text: str, ns: int) -> None:
    assert parse_moment(text) == ns


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "08:00", "-5", "1e9", "١٢", "9" * 30])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time such as 2026-11-23T08:00"):
        parse_moment(text)
