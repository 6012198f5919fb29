"""q-pubsub-http: topics over HTTP, with real acknowledgements and a live page.

    command.py  options.py      the command line; what a run needs, as plain data
    work.py  workers.py         one process serving; several on one socket
    app.py                      requests in, answers out: who may, what it is, how errors are told
    access.py  tokens.py        hosts, origins, tokens, rates;  the token file
    proxies.py                  what a proxy in front says, and what it means for ack=auto
    parameters.py  routes.py    what each address takes; read from there by app.py and by openapi.py alike
    publish.py  outlet.py       /pub and /mpub;  what requests hand in together leaves together
    short.py                    the plainest /pub, without the application
    idempotency.py              keys that were seen
    subscribe.py  websocket.py  /sub as a stream, and as a WebSocket;  message.py takes a single one
    delivery.py  parcel.py      one client's stream: what was sent, taken, finished;  messages in every form
    hub.py                      one upstream connection for all who only listen to a topic
    sessions.py                 what clients hold that acknowledge themselves: /finish /requeue /touch
    topics.py  page.py          what the page shows;  the page

In: HTTP requests. Out: messages in topics, messages from channels. Never here: a message acknowledged that no client's
side has taken.
"""
