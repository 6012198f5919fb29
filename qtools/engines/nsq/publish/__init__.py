"""Messages to NSQ's topics.

publisher.py       publishes over many connections; one topic of it as a Sink
publish_queue.py   publish requests in order, over any open connection
batch_splitter.py  splits messages into PUB, MPUB and DPUB commands within the broker's limits
load_balancing.py  which of several brokers gets the next batch

Where an MPUB is cut is computed by request_ends in flow/gather.py, as q-pipe needs it too; batch_splitter.py calls it.
"""
