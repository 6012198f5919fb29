"""A click command as a program: each error becomes one line on stderr and an exit status.

0 done   1 failed   2 usage   3 could not start      (ended by SIGINT after Ctrl-C; 143 after a second SIGTERM)
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from qtools import __version__
from qtools.cli.ending import end_process, note_interrupt
from qtools.errors import QtoolsError, UsageError

_USERINFO = re.compile(r"(?<=://)[^\s'\"]*@")  # a URL's user name and password, or the beginning of a value with an @
_NAMED = re.compile(r"FILE|DIR|URL|HOST|ADDRESS")  # metavars of flags whose value is a name, which cannot be empty


class Program(click.Command):
    """A command whose errors look like those of other UNIX programs.

    refuses_empty_names: whether an empty name of a file or an empty address is an error.
    subcommands: name of a subcommand (the first word) → the module whose `main` is its Program, imported when it runs,
        or MODULE:NAME.
    takes_command: whether a command of the user's follows after `--`: the parameter `command`, a tuple of words.
    habits: a flag of a similar program, without dashes → what to write instead; "" → what to write instead of an extra
        argument.
    """

    refuses_empty_names = True

    def __init__(
        self,
        *args: Any,
        subcommands: Mapping[str, str] | None = None,
        habits: Mapping[str, str] | None = None,
        takes_command: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.takes_command = takes_command
        self.subcommands = subcommands or {}
        self.habits = habits or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, but raise UsageError for an empty file name or address. It usually comes from a variable
        that is not set, as in --token-file "$TOKENS", and must not count as a missing flag."""
        if self.takes_command:
            place = args.index("--") if "--" in args else len(args)
            args, command = args[:place], args[place + 1 :]
            ctx.params["command"] = tuple(command)
        rest = super().parse_args(ctx, args)
        for param in self.params if self.refuses_empty_names else ():
            if ctx.params.get(param.name or "") != "" or not _NAMED.search(getattr(param, "metavar", None) or ""):
                continue
            if ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.COMMANDLINE:
                raise UsageError(f"{param.opts[0]} is empty: name a {param.metavar}, or leave the flag out")
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            from qtools.cli import logs

            if logs.is_json():
                raise click.Abort from None  # for KeyboardInterrupt, click writes an empty line, which is not JSON
            raise

    def _explained(self, error: click.UsageError, words: Sequence[str]) -> str:
        """The text of a usage error. For a flag of a similar program it says what to write instead."""
        text = _USERINFO.sub("", _one_line(error.format_message()))
        if isinstance(error, click.NoSuchOption):
            names = (word.lstrip("-").partition("=")[0] for word in words if word.startswith("-"))
            habit = next((self.habits[name] for name in names if name and name in self.habits), "")
            return f"no such option {error.option_name!r}: {habit}" if habit else text
        return f"{text}: {self.habits['']}" if "" in self.habits and "extra argument" in text else text

    def _advice(self, words: Sequence[str]) -> str:
        """What to do about a usage error: read the help, or, as for `NAME -q verify …`, write the subcommand first."""
        subcommand = next((word for word in words if word in self.subcommands), "")
        return f"write {self.name} {subcommand} before any flag" if subcommand else f"see {self.name} --help"

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        words = list(sys.argv[1:] if args is None else args)
        if words and words[0] in self.subcommands:
            module, _, name = self.subcommands[words[0]].partition(":")
            chosen: Program = getattr(import_module(module), name or "main")
            run_with(chosen, words[1:]) if args is None else chosen.main(words[1:])
        name = self.name or "qtools"
        _fill_closed_streams()
        if _wants_json(sys.argv[1:] if args is None else args):
            # Usage errors are written as JSON too, and they may occur before --log-format is parsed.
            from qtools.cli import logs

            logs.set_up(name, as_json=True)
        streams = sys.stdout, sys.stderr
        try:
            status = super().main(args, prog_name or name, standalone_mode=False, **extra)
        except click.exceptions.Exit as stop:
            status = stop.exit_code
        except click.UsageError as error:
            _complain(name, f"{self._explained(error, words)} ({self._advice(words)})")
            status = 2
        except (click.Abort, KeyboardInterrupt):
            note_interrupt()
            status = 130
        except click.ClickException as error:
            _complain(name, _one_line(error.format_message()))
            status = 2
        except UsageError as error:
            _complain(name, f"{_USERINFO.sub('', str(error))} ({self._advice(words)})")
            status = 2
        except QtoolsError as error:
            _complain(name, str(error))
            status = error.exit_status
        except OSError as error:
            if os.environ.get("QTOOLS_DEBUG"):
                raise
            _complain(name, _system_error(error))
            status = 1
        except Exception as error:
            from qtools.cli import logs

            if not logs.is_json():
                raise  # a defect of qtools, whose report needs the traceback
            logs.log_defect("not expected", error)
            status = 1
        except SystemExit as end:
            # After --help into a closed pipe click replaces both streams by wrappers, and exits with 1.
            status = end.code if (sys.stdout, sys.stderr) == streams else 0
            sys.stdout, sys.stderr = streams
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            try:
                if stream is not None:
                    stream.flush()
            except OSError as error:
                # At exit Python would flush again and print the error: let it write to /dev/null.
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                if number == 1 and not isinstance(error, BrokenPipeError) and status in (0, None):
                    _complain(name, f"cannot write to stdout: {error.strerror or error}")
                    status = 1
        status = status if isinstance(status, int) else 0
        if args is None:
            end_process(status)
        sys.exit(status)


def run_with(program: Program, words: Sequence[str]) -> NoReturn:
    """Run `program` with the arguments `words`, and end the process."""
    sys.argv[1:] = words
    program.main()


def _wants_json(words: Sequence[str]) -> bool:
    """Whether `words` request log lines in JSON. As in click, the last --log-format counts."""
    wanted = False
    for place, word in enumerate(words):
        if word == "--":
            break
        if word == "--log-format":
            wanted = words[place + 1 : place + 2] == ["json"]
        elif word.startswith("--log-format="):
            wanted = word == "--log-format=json"
    return wanted


def _complain(name: str, text: str) -> None:
    """Write one line to stderr, in the log format if logging is set up already, else as text."""
    import logging

    from qtools.cli import logs

    if not logs.is_set_up():
        logs.set_up(name)
    logs.log(logging.ERROR, text)


def _system_error(error: OSError) -> str:
    """The line for an error of the operating system: too many open files, stdout on a full disk."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{(error.strerror or '').lower()}: the limit of this process is reached (`ulimit -n` shows and sets it)"
    if not error.filename and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return (
            f"cannot write to stdout: {error.strerror}"  # errors of other files have a file name, or are QtoolsErrors
        )
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _fill_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed. Otherwise the next socket would get its descriptor, and
    output would be written to that socket. sys.stdin and sys.stdout stay None, which commands check."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _one_line(text: str) -> str:
    """A message of click in the form of UNIX programs: one line, without a capital letter and a full stop."""
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:]


def program(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Program]:
    """Decorator that makes a function the program `name`, with --version and -h."""

    def decorate(function: Callable[..., Any]) -> Program:
        versioned = click.version_option(__version__, "-V", "--version", prog_name=name, message="%(prog)s %(version)s")
        made: Program = click.command(
            name,
            cls=Program,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
            **settings,
        )(versioned(function))
        return made

    return decorate
