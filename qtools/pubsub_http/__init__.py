"""q-pubsub-http: publish and subscribe over HTTP, with real acknowledgements and a live page.

    command.py flags.py    the command line; checks its flags together
    options.py             what a run needs, as plain data
    app.py                 one process that serves until a signal
    worker_context.py      one worker among several
    workers.py             several processes on one listening socket
    worker_proxy.py        passes a request on to the worker that has to answer it
    gateway.py             puts the parts together
    metrics.py             what the gateway counts, over all its processes

    api/        requests, rights, parameters, the OpenAPI document, the page
    publish/    /pub and /mpub
    subscribe/  /sub, /message, and the acknowledgements of clients

In: HTTP requests. Out: messages in topics, messages from channels. A message is never acknowledged before its client's
side has taken it.
"""
