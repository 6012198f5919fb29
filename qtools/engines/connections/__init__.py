"""Connections to a broker, for every engine with a protocol of its own. Nothing here knows a protocol.

stream_connection.py  a socket that sends once for each turn of the event loop, with flow control and an orderly close
open_connection.py    opens one within a time, and says why it could not be opened
tls.py                TLS contexts from files, checks of the files that were given, and what a TLS error means
foreign_protocol.py   names the protocol of a server that was taken for another one, by its first bytes
flow_control.py       how max-in-flight is shared among connections, or among consumers
in_flight.py          messages in flight on a connection: what is finished, requeued, due to be touched
keep_connected.py     opens a lost connection again, with growing pauses, and logs each outage once
"""
