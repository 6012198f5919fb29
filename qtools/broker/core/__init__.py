"""The broker itself: topics, channels and messages. No sockets, and no event loop except for the turns in broker.py.

broker.py          owns the topics and the clock, and commits together what arrives together
topic.py           accepts each message once, and hands it to the topic's channels
channel.py         hands messages to consumers that are ready, takes them back, counts
consumer.py        one client's subscription to a channel: its ready count, and what it has in flight
block.py           messages that were published together, and ranges of them, as frames
store.py           the interface of a message store
memory_store.py    a store in memory
deferral_queue.py  deferred messages in memory, by due time
deadlines.py       items by due time
clock.py           one clock for due times, which never jumps
slices.py          long work that lets the event loop run in between
latency.py         quantiles of the time from publish to finish
"""
