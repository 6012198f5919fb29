"""Connections to a broker, for every engine with a protocol of its own. Nothing here knows a protocol.

stream_connection.py  a socket that sends once for each turn of the event loop, with flow control and an orderly close
open_connection.py    opens one within a time, and says why it could not be opened
tls.py                TLS contexts from files, and what a TLS error means
keep_connected.py     opens a lost connection again, with growing pauses, and logs each outage once
"""
