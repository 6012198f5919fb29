"""q-pipe: stdin or files to a topic, or to several by a routes file.

command.py        flags to options
options.py        what a run needs, as plain data
app.py            one run: input, publisher, the loop, the summary
blocks.py         blocks of input, and how far they are confirmed
input.py          files and stdin as one Source
log_source.py     all logs as one Source
routed_sink.py    the topics of a routes file as a Sink
checkpoint.py     stores how far a run has come, in a file
logs/             logs that are rotated while they are read
"""
