"""Control characters made visible, for a terminal. In: UTF-8 or any bytes. Out: UTF-8 that does no harm.

A message may hold escape sequences that retitle the window, move the cursor over what was printed, or turn
text around. On a terminal they are shown (^[ for ESC, <U+202E>, \\xff for what is no UTF-8); newline and tab
stay. Into a pipe or a file bytes go untouched: this is not called.
"""

from __future__ import annotations

import re

# C0 but \t \n, DEL, C1, and the marks that reorder text (Unicode Bidirectional Algorithm, UAX #9).
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return "^" + chr(code + 0x40)
    return "^?" if code == 0x7F else f"<U+{code:04X}>"


def visible(data: bytes) -> bytes:
    """`data` with nothing in it that a terminal would act on."""
    return _HARMFUL.sub(_shown, data.decode("utf-8", "backslashreplace")).encode("utf-8")
