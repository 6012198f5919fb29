"""The private local broker: started on demand, one a user, his alone, and nothing is lost between two commands."""

from __future__ import annotations

import os
import re
import signal
import stat
from pathlib import Path

import pytest
from harness.shell import Done, Shell, marked
from harness.waiting import wait_until


def pid_told(done: Done) -> int:
    found = re.search(
        r"started the local broker \(pid (\d+), data in (.*)\); `q-broker stop` ends it$", done.err_lines[0]
    )
    assert found, done.err
    return int(found[1])


def test_the_main_job_on_a_fresh_home(shell: Shell) -> None:
    done = shell.script(r"printf 'a\nb\n' | q-pipe letters && q-tail letters/me -n 2").wait()
    assert (done.status, done.out) == (0, b"a\nb\n")
    assert re.fullmatch(
        r"q-pipe: started the local broker \(pid \d+, data in .*\); `q-broker stop` ends it\n"
        r"q-pipe: 2 messages \(2 B\) in \d+\.\d s(, [\d,]+/s)? to letters\n",
        done.err,
    ), done.err


def test_it_says_once_that_it_was_started(shell: Shell) -> None:
    first = shell.run("q-pipe", "letters", input=b"a\n")
    pid_told(first)
    second = shell.run("q-pipe", "letters", input=b"b\n")
    assert len(second.err_lines) == 1
    done = shell.run("q-tail", "letters/me", "--until-empty")
    assert (done.out, done.err) == (b"a\nb\n", "")


def test_five_at_the_same_moment_get_one(shell: Shell) -> None:
    pipes = [shell.start("q-pipe", "letters", stdin=-1) for _ in range(5)]
    for nth, pipe in enumerate(pipes):
        pipe.feed(b"%d\n" % nth)
        pipe.end_input()
    done = [pipe.wait() for pipe in pipes]
    assert [each.status for each in done] == [0] * 5, [each.err for each in done]
    assert sum("started the local broker" in each.err for each in done) == 1
    read = shell.run("q-tail", "letters/me", "-n", "5")
    assert sorted(read.lines) == [b"0", b"1", b"2", b"3", b"4"]
    assert len(marked(shell.mark)) == 1


def test_cron_finds_the_one_that_a_login_started(shell: Shell) -> None:
    """One broker a user, wherever a command runs: with a runtime directory (a login) or without (cron, sudo)."""
    cron = {"XDG_RUNTIME_DIR": ""}
    pid = pid_told(shell.run("q-pipe", "letters", input=b"a\n"))
    done = shell.run("q-pipe", "letters", input=b"b\n", environ=cron)
    assert (done.status, len(done.err_lines)) == (0, 1), done.err
    done = shell.run("q-broker", "status", environ=cron)
    assert b"running: pid %d, " % pid in done.out
    assert f"tcp     {shell.home}/run/qtools/broker.sock".encode() in done.out
    done = shell.run("q-tail", "letters/me", "--until-empty", environ=cron)
    assert (done.status, done.out, done.err) == (0, b"a\nb\n", "")
    assert shell.run("q-broker", "stop", environ=cron).out == b"the local broker (pid %d) has stopped\n" % pid


def test_a_login_finds_the_one_that_cron_started(shell: Shell) -> None:
    pid = pid_told(shell.run("q-pipe", "letters", input=b"a\n", environ={"XDG_RUNTIME_DIR": ""}))
    done = shell.run("q-tail", "letters/me", "--until-empty")
    assert (done.status, done.out, done.err) == (0, b"a\n", "")
    assert b"running: pid %d, " % pid in shell.run("q-broker", "status").out


def test_five_at_the_same_moment_get_one_in_different_environments(shell: Shell) -> None:
    pipes = [
        shell.start("q-pipe", "letters", stdin=-1, environ={"XDG_RUNTIME_DIR": ""} if nth % 2 else {})
        for nth in range(5)
    ]
    for nth, pipe in enumerate(pipes):
        pipe.feed(b"%d\n" % nth)
        pipe.end_input()
    done = [pipe.wait() for pipe in pipes]
    assert [each.status for each in done] == [0] * 5, [each.err for each in done]
    assert len(marked(shell.mark)) == 1
    assert sorted(shell.run("q-tail", "letters/me", "-n", "5").lines) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_reader_follows_it_when_another_environment_starts_it_anew(shell: Shell) -> None:
    pid = pid_told(shell.run("q-pipe", "letters", input=b"a\n"))
    tail = shell.start("q-tail", "letters/me", environ={"QTOOLS_AUTOSTART": "0"})
    tail.wait_out(2)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: marked(shell.mark) != [] and pid not in marked(shell.mark))
    assert shell.run("q-pipe", "letters", input=b"b\n", environ={"XDG_RUNTIME_DIR": ""}).status == 0
    wait_until(lambda: b"b" in tail.out.splitlines())


def test_one_whose_sockets_were_removed_is_named_with_what_to_do(shell: Shell) -> None:
    pid = pid_told(shell.run("q-pipe", "letters", input=b"a\n"))
    for path in (shell.home / "run" / "qtools").iterdir():
        path.unlink()
    done = shell.run("q-pipe", "letters", input=b"b\n")
    assert done.status == 3
    assert f"pid {pid} is the local broker, and its socket {shell.home}/run/qtools/broker.sock was removed" in done.err
    assert shell.run("q-broker", "stop", "--force").status == 0
    assert shell.run("q-pipe", "letters", input=b"b\n").status == 0
    assert shell.run("q-tail", "letters/me", "-n", "2").lines == [b"a", b"b"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("runtime", [True, False], ids=["with a runtime directory", "without"])
def test_nobody_else_may_enter(shell: Shell, runtime: bool) -> None:
    os.umask(old := os.umask(0o022))
    environ = {} if runtime else {"XDG_RUNTIME_DIR": ""}
    done = shell.run("q-pipe", "letters", input=b"a\n", environ=environ, umask=0)
    assert done.status == 0, done.err
    sockets = shell.home / "run" / "qtools" if runtime else shell.home / "state" / "qtools" / "run"
    assert mode(sockets) == mode(shell.home / "state" / "qtools" / "broker") == 0o700
    assert {mode(path) & 0o077 for path in sockets.iterdir()} == {0}
    assert mode(shell.home / "state" / "qtools" / "broker.log") & 0o077 == 0
    assert old >= 0


def test_autostart_can_be_forbidden(shell: Shell) -> None:
    for command in (["q-pipe", "letters"], ["q-tail", "letters/me"]):
        done = shell.run(*command, input=b"a\n", environ={"QTOOLS_AUTOSTART": "0"})
        assert done.status == 3
        assert len(done.err_lines) == 1
        assert "QTOOLS_AUTOSTART=0 forbids to start it" in done.err
    assert marked(shell.mark) == []
    assert not (shell.home / "state").exists()


def test_forbidden_but_running_is_good(shell: Shell) -> None:
    shell.run("q-pipe", "letters", input=b"a\n")
    done = shell.run("q-pipe", "letters", input=b"b\n", environ={"QTOOLS_AUTOSTART": "0"})
    assert done.status == 0, done.err


def test_status_and_stop(shell: Shell) -> None:
    done = shell.run("q-broker", "status")
    assert (done.status, done.out) == (1, b"the local broker is not running\n")
    pid = pid_told(shell.run("q-pipe", "letters", input=b"a\nb\n"))
    done = shell.run("q-broker", "status")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(b"the local broker is running: pid %d, up " % pid)
    assert b"letters: depth 2" in done.out
    done = shell.run("q-broker", "stop")
    assert (done.status, done.out, done.err) == (0, b"the local broker (pid %d) has stopped\n" % pid, "")
    assert shell.run("q-tail", "letters/me", "-n", "2").out == b"a\nb\n"  # it was started again
    assert shell.run("q-broker", "stop").status == 0
    assert marked(shell.mark) == []
    assert [path for path in (shell.home / "run").rglob("*") if path.is_socket()] == []
    assert shell.run("q-broker", "stop").status == 0


def test_one_that_was_killed_is_replaced(shell: Shell) -> None:
    pid = pid_told(shell.run("q-pipe", "letters", input=b"a\n"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: marked(shell.mark) == [])
    assert (shell.home / "run" / "qtools" / "broker.sock").is_socket()
    assert shell.run("q-broker", "status").status == 1
    done = shell.run("q-pipe", "letters", input=b"b\n")
    assert done.status == 0, done.err
    assert pid_told(done) != pid
    assert shell.run("q-tail", "letters/me", "-n", "2").lines == [b"a", b"b"]


def test_one_that_is_killed_under_a_reader_is_started_anew(shell: Shell) -> None:
    pid = pid_told(shell.run("q-pipe", "letters", input=b"a\n"))
    tail = shell.start("q-tail", "letters/me")
    tail.wait_out(2)
    os.kill(pid, signal.SIGKILL)
    assert shell.run("q-pipe", "letters", input=b"b\n").status == 0
    wait_until(lambda: b"b" in tail.out.splitlines())
    tail.signal(signal.SIGINT)
    done = tail.wait(20)
    # What was finished in the last moments before it was killed may come again.
    assert (done.status, set(done.lines)) == (-signal.SIGINT, {b"a", b"b"})


def test_it_outlives_the_signals_of_the_terminal_it_was_started_from(shell: Shell) -> None:
    tail = shell.start("q-tail", "letters/me", start_new_session=True)
    tail.wait_err("started the local broker")
    os.killpg(tail.pid, signal.SIGINT)
    assert tail.wait(5).status == -signal.SIGINT
    assert shell.run("q-broker", "status").status == 0


def test_a_socket_path_that_is_too_long(shell: Shell) -> None:
    long = shell.home / ("x" * 100)
    long.mkdir()
    done = shell.run("q-pipe", "letters", input=b"a\n", environ={"XDG_RUNTIME_DIR": str(long)})
    assert done.status == 3
    assert len(done.err_lines) == 1
    assert "set XDG_RUNTIME_DIR to a shorter directory" in done.err


@pytest.mark.parametrize("place", ["a file", "nowhere"])
def test_a_state_directory_that_cannot_be_used(shell: Shell, place: str) -> None:
    (shell.home / "file").write_text("")
    state = shell.home / "file" if place == "a file" else Path("/proc/nowhere")
    done = shell.run("q-pipe", "letters", input=b"a\n", environ={"XDG_STATE_HOME": str(state)})
    assert done.status == 3
    assert len(done.err_lines) == 1
    assert str(state) in done.err
    assert marked(shell.mark) == []


def test_somebody_else_s_socket_is_not_taken_for_it(shell: Shell) -> None:
    (shell.home / "run" / "qtools").mkdir(mode=0o700)
    (shell.home / "run" / "qtools" / "broker.sock").write_text("no socket")
    done = shell.run("q-pipe", "letters", input=b"a\n")
    assert done.status in (0, 3)
    if done.status == 3:
        assert len(done.err_lines) == 1
