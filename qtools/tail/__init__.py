"""q-tail: prints the messages of channels to stdout.

command.py      flags to options
flags.py        checks the flags together
options.py      what a run needs, as plain data
app.py          one run: the source, the output, and the loop between them
output.py       stdout as a Sink; it finishes only messages that are written completely
template.py     --output: a line made of parts of each message
columns.py      --fields: values of each message as columns
json_envelope.py  --format json: envelopes whose body is JSON
pretty.py       messages as a person reads them on a terminal
waiting_line.py  what q-tail waits for, on a terminal
peek_source.py  --peek: waiting messages as a Source
terminal.py     makes control characters visible
"""
