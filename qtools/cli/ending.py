"""How the process ends: with an exit status, or by the signal that the user ended it with.

A shell ends its loop (`while …; do q-tail …; done`) after Ctrl-C only when SIGINT has killed the command: one that
handles the signal and exits with a status of its own, 130 included, is followed by the next round. So after the orderly
stop the process restores the default handler and sends itself the signal again
(https://www.cons.org/cracauer/sigint.html).
SIGTERM is different: a service that stops in order has done its job, and its status is 0.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_interrupted = False


def note_interrupt() -> None:
    """SIGINT has come: when all is done in order, this process ends by it."""
    global _interrupted
    _interrupted = True


def end_process(status: int) -> NoReturn:
    """End the process; what it has to say has been said and flushed."""
    if _interrupted:
        end_by(signal.SIGINT)
    if "asyncio" in sys.modules:
        # Nothing is left to be done, and taking an interpreter apart piece by piece takes 20 ms.
        os._exit(status)
    sys.exit(status)


def end_by(number: signal.Signals) -> NoReturn:
    """End the process at once, by signal `number`."""
    if number == signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(128 + number)
