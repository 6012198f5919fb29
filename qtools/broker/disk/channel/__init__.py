"""One channel of the durable store.

backlog.py       the messages that wait in the channel
contract.py      what a backlog needs of its topic and of the store
unfinished.py    the blocks in memory that are not finished, and their rows in the database
memory_queue.py  the messages at the head of the channel that are in memory
in_flight.py     the frames of messages in flight; the oldest give up their memory and are read again
on_disk.py       the messages that wait and are on disk only: what has to be read next, and what was read
deferred.py      deferred messages, on disk by due time, except for those due soon
progress.py      one block: what is finished, what was requeued, when the rest is due
peek.py          the first messages that wait, without taking them
seq_set.py       a set of block numbers that takes little memory
"""
