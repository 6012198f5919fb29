"""q-pipe: stdin or files → a topic, or several by a routes file.

command.py      flags → options → run
options.py      what a run needs, as plain data
work.py         one run: input, publisher, the loop, what is said at the end
blocks.py       blocks of input, and how far they are confirmed
input.py        files and stdin as one Source that knows how far it is confirmed
routed.py       the topics that a routes file says, as a Sink
rotation.py     which files of a rotated log are read, in what order, and where: rules only
rotated_names.py, rotated_files.py   the names of rotated files, and where they are
logfile.py      one file of a log, and what tells it from others
open_files.py   the open files of one log, over its rotations
rotating_log.py one log as chunks
logreader.py    all logs as chunks
logsource.py    the same as one Source
checkpoint.py   how far a run has come, in a file
"""
