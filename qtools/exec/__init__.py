"""q-exec: runs a command for each message; the exit status says what becomes of the message.

command.py      the command line
flags.py        checks the flags together
options.py      what a run needs, as plain data
outcomes.py     what becomes of a message: by exit status, timeout, or a worker's answer
selection.py    --where and --select
arguments.py    a message as arguments and environment of a command
process.py      starts one process, and reads its exit status
jobs.py         the commands that run now, each with its timeout and its output
output.py       the output of the commands, on this process's own stdout and stderr
kept_worker.py  --keep: one process that reads all messages and answers each
dead_letters.py the publisher of dead letters
settling.py     acknowledges, requeues or dead-letters messages, and counts them
dispatcher.py   reads messages, and starts a command for each
app.py          one run
"""
