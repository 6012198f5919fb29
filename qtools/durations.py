"""A length of time as people write it. In: text. Out: seconds.

250ms   10s   1m30s   1.5h   2d   .5 (seconds)
"""

from __future__ import annotations

import re

# At most 18 digits: more than any use needs, and few enough not to overflow.
NUMBER = r"(?:[0-9]{1,18}(?:\.[0-9]{1,18})?|\.[0-9]{1,18})"
_DURATION = re.compile(rf"({NUMBER})(ns|us|µs|ms|s|m|h|d)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """`250ms`, `1m30s`, `1.5h`, `2d`, or a bare number of seconds → seconds; ValueError otherwise."""
    text = text.strip()
    if re.fullmatch(NUMBER, text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 250ms, 10s, 1m30s or 2h")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
