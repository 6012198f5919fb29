"""Messages from durable consumers of JetStream, which are channels.

source.py         the contract's Source: what may be in flight, limits, what is counted
pull_consumer.py  one consumer: requests for messages, arrivals, acknowledgements
subscriptions.py  finds a consumer for a channel, or creates it
delivery.py       the origin of messages: what their ack subjects and headers say
peek.py           shows messages without taking them
"""
