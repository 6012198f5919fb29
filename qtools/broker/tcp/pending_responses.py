"""The responses that one client waits for, in the order of its commands. In: responses, and the commits that they wait
for. Out: responses that may be sent.

A response that needs no commit still waits for the responses before it. If a publish could not be stored, all responses
after it are dropped: those messages may or may not be stored, so the client has to publish all of them again.
"""

from __future__ import annotations

from collections import deque

from qtools.broker.core.store import Commit

# the command that failed, and why
Failure = tuple[str, Exception]


class PendingResponses:
    """A queue of responses."""

    __slots__ = ("_responses",)

    def __init__(self) -> None:
        self._responses: deque[tuple[Commit | None, bytes, str]] = deque()

    def put(self, frames: bytes, commit: Commit | None = None, command: str = "") -> None:
        """Add `frames`, to be sent once `commit` is done. command: the publish command that fails if the commit fails;
        "" if the response is sent all the same."""
        self._responses.append((commit, frames, command))

    def take_due(self) -> tuple[list[bytes], Failure | None]:
        """The frames that may be sent now, and the failure after which no response is left; None without a failure."""
        responses = self._responses
        due: list[bytes] = []
        while responses and (responses[0][0] is None or responses[0][0].done):
            commit, frames, command = responses.popleft()
            if commit is not None and commit.error is not None and command:
                responses.clear()
                return due, (command, commit.error)
            due.append(frames)
        return due, None

    @property
    def last_commit(self) -> Commit | None:
        """The last commit that a response waits for."""
        return next((commit for commit, _, _ in reversed(self._responses) if commit is not None), None)

    def __len__(self) -> int:
        return len(self._responses)
