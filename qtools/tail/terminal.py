"""Makes control characters visible on a terminal. In: UTF-8 or any bytes. Out: UTF-8 without control characters.

A message may contain escape sequences that change the title of the window, overwrite printed lines, or reverse the
direction of text. On a terminal they are shown as ^[ for ESC, <U+202E>, or \\xff for bytes that are not UTF-8; newline
and tab stay. Pipes and files get the bytes unchanged: this module is not used for them.
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
    """Replace everything in `data` that a terminal would interpret, except newline and tab."""
    return _HARMFUL.sub(_shown, data.decode("utf-8", "backslashreplace")).encode("utf-8")
