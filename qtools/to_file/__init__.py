"""q-to-file: topics to files, locally or in an object store; archives verified, and replayed.

command.py flags.py  flags to options
options.py           what a run needs, as plain data
app.py               one run: consumer, sink, the loop, the end
topic_watcher.py     the topics that match a pattern, now and later
time_type.py         points in time, as a click type

archive/  files that grow, are finished, and get their names
sinks/    archives as sinks: a directory, a spool before a store, a store
stores/   object stores and directories
read/     q-to-file verify and q-to-file replay
"""
