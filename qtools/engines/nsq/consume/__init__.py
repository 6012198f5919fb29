"""Messages from NSQ's channels.

source.py            a consumer with what a run asks and warns about: what commands read from
consumer.py          many connections as one Source
drain.py             when a run ends by itself: the channels are empty, nothing more arrives, or a limit is reached
backlog_guard.py     keeps a temporary channel from taking a topic's only messages
backlog_warnings.py  warnings about messages that a run will not receive
history.py           requests that only q-broker answers: start in the past, read without taking
"""
