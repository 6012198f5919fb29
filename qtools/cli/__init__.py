"""What the commands share.

    types.py      durations, sizes, addresses, names, delimiters as click types
    options.py    every shared flag, once, with its rules
    program.py    a click command as a program: exit status, one line for an error
    run.py        a coroutine as a program: signals, closed pipes, event loop
    trial.py      the first messages tried before one is finished
    ending.py     how the process ends: with a status, or by SIGINT
    logs.py       talk on stderr: text or JSON
    meter.py      the progress line on a terminal, and the closing summary
    metrics.py    operations of a long-running command: what the two below need, started and closed
    scrape.py     /metrics, /healthz, /readyz over HTTP
    statsd.py     what is counted, told over UDP
    families.py   what is counted, as Prometheus reads it
    counts.py     the set of families that commands share
    sending.py    an input sent to its end: what q-pipe and q-to-file replay share
    dedupe.py     which messages were sent before: what q-bridge and q-to-file share
    statefile.py  how far a run has come, in a file
    stdout.py     a descriptor written to the end, non-blocking or not
    worker.py     one thread for what blocks: stdin, stdout, fsync

Only click is imported at the top of a command; what a `--help` does not need is imported late.
"""
