"""The protocol core: bytes ↔ meaning, for both sides of NSQ's V2 protocol.

No sockets, no clock, no async, here or below: bytes go in, lists come out, and a caller that wants
to know the time says what time it is.

    inbox.py        bytes that arrived and are not yet understood
    frames.py       server → client: many frames out of one chunk, one in
    commands.py     client → server: encode each
    reader.py       client → server, the broker's side: bytes in, commands out
    identify.py     the handshake's two sayings: what a client asks for, what both then go by
    negotiate.py    the broker's side of it: what is granted
    session.py      one client connection: bytes in → events; intents → bytes out
    filters.py      what stands between the socket and the frames: TLS, snappy, deflate
    lookup.py       the words spoken to nsqlookupd
"""
