"""What the commands share.

    program.py        a click command as a program: one line for an error, the right exit status
    run.py            a coroutine as a program: event loop, signals
    consume_run.py    what runs that read channels share: the tasks beside the loop, a filter, notes for the summary
    ending.py         how the process ends: with a status, or by SIGINT
    broker.py         the broker's flags and full addresses: which engine, which settings
    options.py        every shared flag, once, with its rules
    flag_rules.py     which flags do not go together
    types.py          durations, sizes, addresses, names and delimiters as click types
    logs.py           log lines on stderr, as text or JSON
    failure_log.py    log lines about messages that failed
    progress_line.py  the progress line on a terminal, and the closing summary
    upload_run.py     sends a whole input: shared by q-pipe and q-to-file replay
    checkpoint.py     a checkpoint file: the position up to which an input was sent
    dedupe.py         --dedupe, shared by q-bridge and q-to-file
    trial.py          stops a run whose expression fails on all of the first messages
    worker.py         one thread for calls that block: stdin, stdout, fsync

    metrics/          /metrics, probes and statsd
    schemas/          the flags for schemas

The modules of commands import only click at their top. They import what `--help` does not need when a run begins.
"""
