"""q-tail: channels → stdout.

command.py      flags → options → run
options.py      what a run needs, as plain data
work.py         one run: consumer, output, the loop, when it ends
output.py       stdout as a Sink: formats, whole messages only
terminal.py     control characters made visible
"""
