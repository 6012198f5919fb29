"""q-tail: channels to stdout.

command.py      flags to options
flags.py        checks the flags together
options.py      what a run needs, as plain data
app.py          one run: consumer, output, the loop, the end
output.py       stdout as a Sink: formats, whole messages only
peek_source.py  --peek: waiting messages as a Source
terminal.py     makes control characters visible
"""
