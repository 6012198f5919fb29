"""q-pipe: stdin or files to a topic, or to several by a routes file.

    command.py        flags to options
    options.py        what a run needs, as plain data
    app.py            one run: input, publisher, the loop, the summary
    blocks.py         blocks of input, and how far they are confirmed
    input.py          files and stdin as one Source
    routed_sink.py    the topics of a routes file as a Sink
    checkpoint.py     stores how far a run has come, in a file

Logs that are rotated:

    rotation.py       which files of a log are read, in what order, and from where: rules only
    rotated_names.py  the names of rotated files
    rotated_files.py  the rotated files that exist
    logfile.py        one file of a log, and how it is recognized
    open_files.py     the open files of one log, over its rotations
    rotating_log.py   one log as chunks
    logreader.py      all logs as chunks
    logsource.py      all logs as one Source
"""
