"""q-broker: an nsqd in Python.

    command.py foreground.py    the command line; a broker until a signal
    daemon.py                   opens and closes the doors in order
    tcp_door.py                 where clients come in; over HTTP through web/door.py
    link.py                     a client's socket: filters, heartbeats, what waits to be written
    tcp.py                      a client's conversation: NSQ's V2 protocol;  owed.py what it is owed
    http.py                     nsqd's HTTP API;  admin.py topics and channels over it;  auth.py asks an auth server
    past.py                     times and messages as `from` and `peek` have them
    stats.py  metrics.py        what /stats tells, and /metrics;  statsd.py pushes it
    latency.py                  how long messages take: quantiles over a window
    lookup.py                   registers with nsqlookupd
    broker.py                   owns the topics and the clock; lets what comes at once happen together
    topic.py                    accepts messages once, hands them to its channels
    channel.py  consumer.py     hands messages to ready clients, takes them back, counts
    deadlines.py                what comes due, and when
    store.py                    where messages are kept: the interface, and memory;  disk/ the durable one
    block.py                    messages published together, as the frames that deliver them
    lock.py                     one process for each data directory
    local.py  control.py        the private local broker: its process; `q-broker status` and `stop`
    options.py                  nsqd's options, by nsqd's names;  config.py tells and changes them over HTTP
    arguments.py                nsqd's command lines and config files

From block.py up to broker.py there is no socket and, but for the turns in broker.py, no event loop.
"""
