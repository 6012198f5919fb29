"""Reads channels of Redis Streams.

source.py             the source: what was read, how much may be read, how a run ends
source_connections.py its connections, and the tasks that read
reading.py            the tasks that read one subscription
channel.py            what a subscription has in flight
group_channel.py      a subscription through a consumer group
temporary_channel.py  a subscription without a group
drained.py            whether anything is left
"""
