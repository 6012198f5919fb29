"""Java servers that Maven fetches, once, into a cache of the user. In: what to fetch. Out: why it cannot be had."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

RESOLVE_TIMEOUT = 300.0  # s


def cache_of(name: str) -> Path:
    """The directory of a server of this name, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qtools-tests" / name


def why_not_fetched(server: str, cache: Path, words: list[str], unpack: Callable[[], bool] = lambda: True) -> str:
    """Why `server` is not in `cache`; "" if it is. The first call fetches it with Maven, which takes a minute; one that
    failed is not repeated for an hour. words: Maven's goal and options. unpack: called after it; False if what is
    needed is not there."""
    if shutil.which("java") is None:
        return f"no Java on PATH, to run {server}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (cache / "complete").exists():
            return ""
        if shutil.which("mvn") is None:
            return f"no Maven on PATH, to fetch {server}"
        if (cache / "failed").exists() and time.time() - (cache / "failed").stat().st_mtime < 3600:
            return f"{server} cannot be fetched with Maven"
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                ["mvn", "-q", "-B", *words], capture_output=True, timeout=RESOLVE_TIMEOUT, check=False
            )
            if done.returncode == 0 and unpack():
                (cache / "complete").touch()
                return ""
        (cache / "failed").touch()
        return f"{server} cannot be fetched with Maven"
