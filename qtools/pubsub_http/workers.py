"""Several processes on one listening socket. In: options. Out: HTTP served on more cores, until a signal.

    parent   opens the socket, starts the workers, restarts a worker that ends, passes signals on; serves nothing
    worker   accepts from the shared socket; passes requests that another worker has to answer on to that one

A session lives in the worker that its name begins with, an Idempotency-Key in the one that it hashes to: requests
about them are passed on over a Unix socket in a directory that only this user can enter. Each worker limits its own
rates and subscriptions, and reads a topic that its subscribers share once. It remembers its own broken event streams;
the worker to which their client reconnects asks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

from qtools.cli import logs
from qtools.cli.ending import note_interrupt
from qtools.cli.run import MESSAGES_COME_AGAIN, ONE_SIGNAL_SECONDS, Signals, abrupt_end, run_program
from qtools.errors import QtoolsError
from qtools.pubsub_http.app import check_capabilities, close, serve_on
from qtools.pubsub_http.metrics import SharedCounters
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.worker_context import WorkerContext
from qtools.sockets import listen

log = logging.getLogger("qtools.pubsub")

AGAIN = 1.0  # s: a worker that ended sooner than this is restarted only after this time


def serve_with_workers(options: GatewayOptions) -> int:
    """Serve until a signal; return the exit status. UsageError, StartError before anything is served."""
    check_capabilities(options)
    listening = listen(options.http_address, "--http-address")
    directory = Path(tempfile.mkdtemp(prefix="q-pubsub-"))  # 0700
    try:
        return _Parent(options, listening, directory).run()
    finally:
        close(listening, options)
        shutil.rmtree(directory, ignore_errors=True)


class _Parent:
    """The parent process. It has no event loop: it waits for signals."""

    SIGNALS = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})

    def __init__(self, options: GatewayOptions, listening: socket.socket, directory: Path) -> None:
        self._options = options
        self._listening = listening
        self._directory = directory
        self._counters = SharedCounters(options.workers)
        self._workers: dict[int, tuple[int, float]] = {}  # pid → number, when it began
        self._lifeline, self._lifeline_end = os.pipe()
        self._stopping = False
        self._stopping_since = 0.0
        self._status = 0

    def run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, self.SIGNALS)
        for number in range(self._options.workers):
            self._start(number)
        while self._workers:
            received = signal.sigwait(self.SIGNALS)
            if received == signal.SIGCHLD:
                self._reap()
            else:
                if received == signal.SIGINT:
                    note_interrupt()
                self._stop_for(signal.Signals(received))
        return self._status

    def _stop_for(self, received: signal.Signals) -> None:
        """Stop in order at the first signal, and at once at a second one (run.py)."""
        if not self._stopping:
            self._stopping_since = time.monotonic()
            self._stop(signal.SIGTERM)
        elif time.monotonic() - self._stopping_since >= ONE_SIGNAL_SECONDS:
            logs.log(logging.ERROR, abrupt_end(received, MESSAGES_COME_AGAIN))
            self._stop(signal.SIGKILL)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping = True
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _start(self, number: int) -> None:
        self._counters.set_serving(number, False)
        pid = os.fork()
        if pid:
            self._workers[pid] = (number, time.monotonic())
            return
        os.close(self._lifeline_end)
        # A terminal sends Ctrl-C to every process of the job: the parent passes it on, once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)
        worker = WorkerContext(number, self._options.workers, self._directory, self._counters, self._lifeline)
        status = 1
        try:
            status = run_program(
                lambda signals: _work(self._listening, self._options, worker, signals),
                server=not self._options.https_cert,
                stopping=(signal.SIGTERM,),
            )
        except QtoolsError as error:
            logs.log(logging.ERROR, str(error))
            status = error.exit_status
        except BaseException as error:  # a defect: log it here, because the process ends before anything else could
            log.error("internal error: worker %d ends with %r", number, error, exc_info=error)
        finally:
            os._exit(status)

    def _reap(self) -> None:
        """Collect the exit status of every worker that has ended, and restart it where that may help."""
        while self._workers:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number, began = self._workers.pop(pid)
            status = os.waitstatus_to_exitcode(wait_status)
            if self._stopping:
                self._status = self._status or max(0, status)
            elif status >= 0 and not self._counters.is_serving(number):  # it could not start, and has logged why
                self._status = status or 1
                self._stop(signal.SIGTERM)
            else:
                how = f"status {status}" if status >= 0 else signal.Signals(-status).name
                log.warning("worker %d ended with %s; starting it again", number, how)
                time.sleep(max(0.0, began + AGAIN - time.monotonic()))
                self._start(number)


async def _work(listening: socket.socket, options: GatewayOptions, worker: WorkerContext, signals: Signals) -> int:
    """One worker's run."""
    loop = asyncio.get_running_loop()

    def parent_gone() -> None:  # the parent was killed, so that no signal will come from it
        loop.remove_reader(worker.lifeline)
        if signals.received is None:
            signals.handle(signal.SIGTERM)

    loop.add_reader(worker.lifeline, parent_gone)
    return await serve_on(listening, options, signals, worker)
