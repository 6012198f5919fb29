"""What the commands share.

    program.py        a click command as a program: one line for an error, the right exit status
    run.py            a coroutine as a program: event loop, signals
    run_watch.py      the tasks beside the loop of a command that reads: its end, warnings
    ending.py         how the process ends: with a status, or by SIGINT
    broker.py         the broker's flags and full addresses: which engine, which settings
    options.py        every shared flag, once, with its rules
    types.py          durations, sizes, addresses, names and delimiters as click types
    logs.py           log lines on stderr, as text or JSON
    progress_line.py  the progress line on a terminal, and the closing summary
    upload_run.py     sends an input to its end: shared by q-pipe and q-to-file replay
    checkpoint.py     a checkpoint file: how far a run has come
    dedupe.py         --dedupe, shared by q-bridge and q-to-file
    trial.py          stops a run whose expression fails on all of the first messages
    worker.py         one thread for calls that block: stdin, stdout, fsync

    metrics/          /metrics, probes and statsd

Only click is imported at the top of a command; what `--help` does not need is imported late.
"""
