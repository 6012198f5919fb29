"""The clients of a broker: everything that opens connections to one.

    address.py      what an address is; which brokers a command uses
    local.py        the private local broker: found, or started as a process
    settings.py     how to connect: TLS, AUTH, compression, names, timeouts
    connection.py   one socket driving one session
    held.py         messages in flight on a connection, publishes without an answer
    links.py        many addresses, each kept connected
    ready.py        how max-in-flight is shared among connections
    consumer.py     many connections as one Source
    batch_splitter.py  splits messages into PUBs, MPUBs and DPUBs within the limits
    publish_queue.py   publishes in order, over any open connection
    balance.py      which of several brokers has the next batch
    publisher.py    many connections that publish; one topic of them as a Sink
    discovery.py    ask every nsqlookupd; keep a set of addresses
    topics.py       which topics there are
    ends.py         when a run ends by itself: empty, as many as at the start, idle
    backlog.py      warnings about messages that a run will not get
    http.py         nsqd's HTTP API: sizes, depths, topics
    guard.py        protects a topic's only messages from a temporary channel
    backoff.py      the next delay, given the failures so far

Events are logged to `qtools.client`; the commands decide how log lines look.
"""
