"""The protocol of NATS and JetStream: bytes in, events out; intents in, bytes out. No sockets, no clock, no asyncio.

server_reader.py  server to client: control lines and messages
commands.py       client to server: each command encoded
server_info.py    INFO, and what -ERR means
headers.py        headers of messages, and status lines
ack_subject.py    the subject that acknowledges a message, and what it tells of it
pub_acks.py       the server's answers to publishes
attributes.py     keys, headers and timestamps as headers of NATS, and back
"""
