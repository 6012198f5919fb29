"""Redis Streams as an engine, also of Valkey: a topic is a stream, a channel a consumer group of it.

engine.py         RedisEngine: what a command gets for a redis:// URL
options.py        options by key, from a URL's query, a profile or flags → an engine
settings.py       how to connect
server_errors.py  what a server's errors mean
connection.py     one socket that drives the protocol
connect.py        opens connections to a server that accepts writes
server_info.py    limits, durability and identity of a server
looks.py          topics, depths and the first entries
topic_changes.py  creates, empties and deletes
protocol/         the protocol without I/O
publish/          publishes
consume/          reads
"""
