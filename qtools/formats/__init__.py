"""The formats of messages outside a broker: bytes to messages, and back.

lines.py     raw messages with a delimiter, whole inputs, and length-prefixed messages
envelope.py  a message with its metadata, as JSON or msgpack, and back without loss
envelope_records.py  key, headers and the rest of messages that were read from envelopes
encoders.py  the output formats by name
"""
