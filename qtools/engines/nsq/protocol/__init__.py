"""NSQ's V2 protocol, both sides: bytes in, lists of messages, commands or events out; intents in, bytes out.

No sockets, no clock, no asyncio here: a function that needs the time takes it as an argument.

    frames.py          server to client: frames and messages, decoded and encoded
    stamped_messages.py  messages by column, with timestamps and attempts as they came
    commands.py        client to server: each command encoded
    client_commands.py  client to server, on the broker's side: the commands as plain data
    command_reader.py  client to server, on the broker's side: bytes in, commands out
    identify.py        the IDENTIFY request and response
    negotiate.py       the broker's side of IDENTIFY: what a client is granted
    client_states.py   the states of a client connection, and the commands that each allows
    session.py         one client connection as a state machine; it answers the broker's heartbeats
    transforms.py      TLS, snappy and deflate, between the socket and the frames
    lookup.py          nsqlookupd's protocol and its HTTP answers
"""
