"""Pairs of free ports: HTTP is looked for one above TCP.

They lie below the range that the system takes outgoing connections' ports from, so that a broker which
is stopped for a while finds its ports free when it comes back.
"""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 10_000, 32_000


def free_pair() -> int:
    """A port that is free on 127.0.0.1, as is the next one."""
    draw = random.SystemRandom()  # several test processes draw at the same time
    for _ in range(1000):
        port = draw.randrange(LOWEST, HIGHEST, 2)
        if is_free(port) and is_free(port + 1):
            return port
    raise AssertionError("no two neighbouring free ports")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
