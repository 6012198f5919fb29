"""The rooms with sockets: everything that speaks to a broker from outside.

    address.py      what an address is; which brokers a command shall speak to
    local.py        the private local broker: found, or started as a process
    settings.py     how to connect: TLS, AUTH, compression, names, timeouts
    connection.py   one socket driving one session
    held.py         messages held here, answers owed there
    links.py        many addresses, each kept connected
    ready.py        how max-in-flight is shared among connections
    consumer.py     many connections as one Source
    batch_splitter.py  cuts messages into PUBs, MPUBs and DPUBs within the limits
    publish_queue.py   publishes in order, through any connection there is
    balance.py      which of several brokers has the next batch
    publisher.py    many connections that publish; one topic of them as a Sink
    discovery.py    ask every nsqlookupd; keep a set of addresses
    topics.py       which topics there are
    ends.py         when there is no more to come: drained, idle
    http.py         nsqd's HTTP API: sizes, depths, topics
    guard.py        a temporary channel must not take away what nobody else has
    backoff.py      the next delay, given the failures so far

What goes on is told to the logger `qtools.client`; the commands decide how it looks.
"""
