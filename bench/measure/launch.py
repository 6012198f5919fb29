"""Start a command, wait for it, and write what it took to a file descriptor, as one JSON object.

    $ python -I -S launch.py FD COMMAND [ARGUMENT]...

A process of its own, because the peak memory the kernel reports of a child begins with what its parent had when
the child was started: under a benchmark that holds the messages, every command would seem to need 200 MB. This one
stays below 10 MB, less than any command measured. SIGTERM to the two of them ends the command, and then is told of.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    report = int(sys.argv[1])
    os.set_inheritable(report, False)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begin = time.perf_counter()
    pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, setsigdef=[signal.SIGTERM])
    _, status, used = os.wait4(pid, 0)
    took = {
        "seconds": time.perf_counter() - begin,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "status": os.waitstatus_to_exitcode(status),
    }
    os.write(report, json.dumps(took).encode())


if __name__ == "__main__":
    main()
