"""The AMQP 0-9-1 protocol as RabbitMQ speaks it, without I/O: bytes in → events, intents → bytes out.

values.py             field tables, and the values in them
properties.py         the properties of a message: the content header
methods.py            the methods that are used, by name: arguments ↔ frames
frames.py             the reader: chunks → methods, contents and runs of deliveries
deliveries.py         the loop that parses runs of deliveries and of confirms
publishes.py          batches of messages → the frames that publish them
session.py            a connection from its first byte on: handshake, heartbeats, channels, close
"""
