"""The engine for NATS JetStream, with a protocol of its own: every NATS library for Python costs ten times the CPU.

settings.py      how to connect, and how streams and consumers are created
options.py       settings by key: from a URL's query, --engine-option, a profile, flags
credentials.py   passwords, tokens, nkeys and files of credentials: what CONNECT says
connection.py    one socket that drives the protocol; opened within a time
client.py        one connection to any of several servers, kept; requests and subscriptions over it
api.py           JetStream's API: streams and consumers
administration.py  creates, empties and deletes topics and channels
topics.py        which topics there are, what waits in them, which cluster it is; deletes them
engine.py        JetStream as commands see it, as engines/contract.py says

consume/         messages from consumers
publish/         messages to subjects
protocol/        bytes in, events out, without I/O
"""
