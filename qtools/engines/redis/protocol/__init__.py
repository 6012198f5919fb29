"""The protocol of Redis (RESP2 and RESP3) as far as streams need it: bytes in, replies out; intents in, bytes out.

No sockets, no clock, no asyncio here: a function that needs the time takes it as an argument.

    replies.py       what a server answers: values, errors, pushes
    reply_reader.py  bytes in, replies out, in Python alone
    fast_reader.py   the same on the library hiredis, where that is installed
    commands.py      each command encoded
    entries.py       entries of a stream ↔ bodies, keys, headers
    stream_ids.py    the ids of entries: their order, their times, the ids of messages
"""
