"""HTTP served, for whoever has an API: q-broker and q-pubsub-http.

    wire.py      one client's transport: writes once a turn, knows what the client has taken and whether it is dead
    door.py      uvicorn's protocol classes on a socket of ours;  client.py the one for HTTP, with limits;
                 websocket.py the one for WebSockets
    short.py     the short way: small requests answered without an application
    bodies.py    bodies of requests, read within a limit, and taken apart;  encodings.py decodes them
    dates.py     when an answer was made

In: a listening socket and a plain ASGI application. Nothing here knows what the application is about.
"""
