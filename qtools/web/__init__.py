"""HTTP servers: used by q-broker and q-pubsub-http, and knows nothing of either.

    http_server.py           accepts clients on a listening socket, within limits
    contract.py              what the connection of a client needs of the server
    limits.py                what the server accepts from each client
    http_connection.py       one HTTP client: uvicorn's protocol class, with limits
    framing.py               how bodies are delimited, and which heads are refused for that
    websocket.py             one WebSocket client: uvicorn's protocol class, with deadlines
    fast_path.py             small POST requests, answered without an application
    tracked_transport.py     the transport of one client: what the client has taken, and whether it is dead
    sender.py                sends the parts of a response, or raises ClientGone
    request_body.py          reads a body within a limit
    content_codings.py       decodes gzip, deflate and zstd
    memory_budget.py         one memory limit for all clients of the process
    host_header.py           which machine a request is meant for
    header_names.py          header names with the usual capitals
    date_header.py           the Date header, made once a second

In: a listening socket and an ASGI application.
"""
