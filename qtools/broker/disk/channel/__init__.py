"""One channel of the durable store.

backlog.py       what waits in the channel, and what has to be read next
memory_queue.py  the messages at the head of the channel that are in memory
in_flight.py     the frames of messages in flight; the oldest give up their memory and are read again
deferred.py      deferred messages, on disk by due time, except for those due soon
progress.py      one block: what is finished, what was given back, when the rest is due
seq_set.py       a set of block numbers that takes little memory
"""
