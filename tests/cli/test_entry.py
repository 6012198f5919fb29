"""Ctrl-C while a command is still being imported ends it as the signal does, without a traceback."""

from __future__ import annotations

import signal
import subprocess
import time

from harness.shell import MODULES, NOT_MEASURED, base_environment, words_for

PROGRAMS = sorted(MODULES)


@NOT_MEASURED
def test_an_interrupt_at_any_moment_of_the_start_prints_no_traceback() -> None:
    """The interpreter itself, before it runs the script, is not ours: what ends there is not looked at."""
    seen = 0
    for attempt in range(40):
        program = PROGRAMS[attempt % len(PROGRAMS)]
        process = subprocess.Popen(
            [*words_for(program), "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=base_environment()
        )
        time.sleep(0.02 + attempt * 0.003)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        if b"qtools/cli" in err or b"click" in err:
            raise AssertionError(err.decode())
        seen += process.returncode == -signal.SIGINT
    assert seen > 5  # some of them came while it started


def test_each_console_script_runs_its_own_command() -> None:
    for program in PROGRAMS:
        done = subprocess.run(
            [*words_for(program), "--version"], capture_output=True, env=base_environment(), check=True
        )
        assert done.stdout.startswith(program.encode()), done
