"""qtools soak: publishes numbered messages to a cluster, reads them, and says which were lost.

command.py         flags to options
flags.py           checks the flags together
options.py         what a run needs, as plain data
app.py             one run: connect, probe, publish and read, settle, report, remove
bodies.py          numbers to bodies with a checksum, and back
history.py         what became of each number, in bounded memory
latency.py         percentiles
publishing.py      publishes at a rate, or as fast as possible
reading.py         reads, and notes what was delivered
reader_process.py  reads in a process of its own, which may be killed
removal.py         removes the topic or the channel that the run has made
report.py          the result as text or JSON
"""
