"""Messages from queues.

source.py         reads subscriptions, each from its queue: the Source of engines/contract.py
queue_reader.py   one subscription: its channel, its queue, its consumer and how much that may have in flight
in_flight.py      what one channel has delivered, and what becomes of it
delayed.py        delivers messages again after a delay
prefetch.py       divides what may be in flight among the consumers
queue_counts.py   whether anything is left in the queues
"""
