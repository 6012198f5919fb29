"""Archives as sinks.

sinks.py         chooses the sink: a directory, a spool before a store, or a store
archive_sink.py  a local directory: one thread for the disk; waits where the disk is full
spool.py         local files that are uploaded, and removed when the store has confirmed them
upload.py        finished files to objects, each once, whatever is killed meanwhile
object_sink.py   objects without a local disk
deduped_sink.py  leaves out messages that were sent twice
completing.py    marks partitions that are complete
"""
