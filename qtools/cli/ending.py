"""How the process ends. In: an exit status, or the signal that stopped the run. Out: nothing; no call returns.

After Ctrl-C a shell leaves its loop (`while …; do q-tail …; done`) only if SIGINT has killed the command. After a
command that handles the signal and exits with a status of its own, 130 included, the loop goes on. So after an orderly
stop the process restores the default handler and sends itself SIGINT again (https://www.cons.org/cracauer/sigint.html).
SIGTERM is different: a service that stops in order has done its job, so its status is 0.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_interrupted = False


def note_interrupt() -> None:
    """Make `end_process` end this process by SIGINT, whatever the exit status."""
    global _interrupted
    _interrupted = True


def end_process(status: int) -> NoReturn:
    """End the process with `status`, or by SIGINT after `note_interrupt`. All output has to be flushed already."""
    if _interrupted:
        end_by_signal(signal.SIGINT)
    if "asyncio" in sys.modules:
        # Nothing is left to do, and the interpreter takes 20 ms to shut down after a run with an event loop.
        os._exit(status)
    sys.exit(status)


def end_by_signal(number: signal.Signals) -> NoReturn:
    """End the process at once: by SIGINT itself, for any other signal with the status 128 + `number`."""
    if number == signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(128 + number)
