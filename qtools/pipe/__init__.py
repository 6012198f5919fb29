"""q-pipe: stdin or files → a topic.

command.py      flags → options → run
options.py      what a run needs, as plain data
work.py         one run: input, publisher, the loop, what is said at the end
input.py        files and stdin as one Source that knows how far it is confirmed
checkpoint.py   how far a run has come, in a file
"""
