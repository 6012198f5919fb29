"""Answers that one client is owed, in the order in which it asked. In: answers, and the commits that they wait for.

Out: those that are due. An answer that needs no commit waits all the same for those before it. With the first publish
that could not be kept it is over: what came behind it may or may not be safe, so the client has to ask again for all.
"""

from __future__ import annotations

from collections import deque

from qtools.broker.core.store import Commit

# (which command failed, and why)
Failure = tuple[str, Exception]


class PendingResponses:
    """A queue of answers."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: deque[tuple[Commit | None, bytes, str]] = deque()

    def put(self, frames: bytes, commit: Commit | None = None, command: str = "") -> None:
        """`frames` are due when `commit` is done; with a `command` it matters that it did not fail."""
        self._answers.append((commit, frames, command))

    def take_due(self) -> tuple[list[bytes], Failure | None]:
        """What may be sent now; and what failed, with which nothing is owed any more."""
        answers = self._answers
        due: list[bytes] = []
        while answers and (answers[0][0] is None or answers[0][0].done):
            commit, frames, command = answers.popleft()
            if commit is not None and commit.error is not None and command:
                answers.clear()
                return due, (command, commit.error)
            due.append(frames)
        return due, None

    @property
    def last_commit(self) -> Commit | None:
        """With which nothing is owed any more."""
        return next((commit for commit, _, _ in reversed(self._answers) if commit is not None), None)

    def __len__(self) -> int:
        return len(self._answers)
