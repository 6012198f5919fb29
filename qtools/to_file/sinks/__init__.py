"""Archives as sinks.

sinks.py         chooses the sink: a directory, a spool before a store, or a store
archive_sink.py  a local directory: one thread uses the disk; waits while the disk is full
spool.py         local files that are uploaded, and deleted when the store has confirmed them
upload.py        uploads finished files, each once, also if a process is killed meanwhile
object_names.py  names of the objects of a log
object_sink.py   objects without a local disk
log_object_sink.py  the same for a log (Kafka), each message once
store_chains.py  how far the partitions of a log are in a store
dedupe_step.py   leaves out messages that were sent twice
write_outage.py  log lines while nothing can be written
completing.py    marks the partitions that are complete
"""
