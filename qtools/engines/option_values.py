"""Values of options that mean the same for every engine: true and false, and the content of secret files."""

from __future__ import annotations

from typing import Any

from qtools.errors import StartError, UsageError

_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_switch(value: Any) -> bool:
    """True or False, as a bool or in words; ValueError for any other value."""
    found = value if isinstance(value, bool) else _SWITCHES.get(str(value).lower())
    if found is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return found


def read_secret_file(path: str) -> bytes:
    """The secret in the file at `path`; a final newline is not part of it. StartError if the file cannot be read,
    UsageError if it is empty."""
    try:
        with open(path, "rb") as file:
            secret = file.read()
    except OSError as error:
        raise StartError(f"cannot read the secret file {path}: {error.strerror or error}") from error
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise UsageError(f"the secret file {path} is empty")
    return secret
