"""The tokens of one text, one after the other. In: text. Out: the current token and its place; or ExpressionError with
the column and the reason.

The text is not cut into tokens beforehand: inside a string, the parser decides where the next token begins. The rules
for single tokens are in tokens.py.
"""

from __future__ import annotations

from typing import NoReturn

from qtools.errors import ExpressionError
from qtools.expressions.foreign_syntax import find_foreign
from qtools.expressions.tokens import SPACE, TOKEN

MAX_LENGTH = 16384  # characters: enough for a page of conditions


class TokenReader:
    """Reads one text from left to right. kind, token: the current token, between `place` and `after`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind, self.token, self.place, self.after = "", "", 0, 0
        self.end = 0  # the end of the last token that was taken
        if len(text) > MAX_LENGTH:
            self.fail(f"an expression may have {MAX_LENGTH} characters, this one has {len(text)}", MAX_LENGTH)
        self.look(0)

    def fail(self, why: str, place: int | None = None) -> NoReturn:
        """Raise ExpressionError with the column of `place`, or of the current token."""
        raise ExpressionError(self.text, (self.place if place is None else place) + 1, why)

    def fail_if_foreign(self, place: int | None = None) -> None:
        """Fail with a hint if there is syntax of another language at `place`."""
        if found := find_foreign(self.text, self.place if place is None else place):
            self.fail(found[1], found[0])

    def look(self, place: int) -> None:
        """Read the token at `place`, behind spaces and comments."""
        space = SPACE.match(self.text, place)
        self.place = space.end() if space else place
        if self.place == len(self.text):
            self.kind, self.token, self.after = "end", "", self.place
            return
        found = TOKEN.match(self.text, self.place)
        if found is None:
            self.fail_if_foreign()
            self.fail(f"{self.text[self.place]!r} means nothing here")
        self.kind, self.token, self.after = found.lastgroup or "", found[0], found.end()

    def take(self) -> str:
        """Return the current token, and read the next one."""
        token = self.token
        self.end = self.after
        self.look(self.after)
        return token

    def at(self, *tokens: str) -> bool:
        """Whether the current token is a sign or a word among `tokens`."""
        return self.kind in ("sign", "word") and self.token in tokens

    def expect(self, token: str, what: str) -> None:
        """Take `token`, or fail. what: where it belongs, for the message."""
        if not self.at(token):
            self.fail(f"{token!r} was expected {what}, {self.instead()}")
        self.take()

    def instead(self) -> str:
        """What the text has instead of an expected token, as a clause for a message."""
        return "and the expression ends here" if self.kind == "end" else f"not {self.token!r}"
