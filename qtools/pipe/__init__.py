"""q-pipe: stdin or files → a topic, or several by a routes file.

command.py      flags → options → run
options.py      what a run needs, as plain data
work.py         one run: input, publisher, the loop, what is said at the end
input.py        files and stdin as one Source that knows how far it is confirmed
routed.py       the topics that a routes file says, as a Sink
rotation.py     which files of a rotated log are read, in what order, and where: rules only
logfile.py      one file of a log, and what tells it from others
logreader.py    logs, over their rotations, as chunks
logsource.py    the same as one Source
checkpoint.py   how far a run has come, in a file
"""
