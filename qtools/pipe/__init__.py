"""q-pipe: stdin or files → a topic, or several by a routes file.

command.py      flags → options → run
options.py      what a run needs, as plain data
work.py         one run: input, publisher, the loop, what is said at the end
input.py        files and stdin as one Source that knows how far it is confirmed
routed.py       the topics that a routes file says, as a Sink
checkpoint.py   how far a run has come, in a file
"""
