"""The NSQ engine: everything that opens connections to an nsqd, an nsqlookupd or q-broker.

    engine.py           NSQ as commands see it, as engines/contract.py says
    address.py          an address in its forms; which brokers a command uses
    options.py          settings by key: from a URL's query, --engine-option or a profile
    settings.py         how to connect: TLS, AUTH, compression, names, timeouts
    connect.py          opens a connection, and says why one could not be opened
    connection.py       one socket that drives one protocol session
    connection_pool.py  many addresses, each kept connected
    ask_all.py          asks several HTTP APIs at once, and logs each outage once
    discovery.py        asks every nsqlookupd, and keeps the set of addresses
    http_client.py      nsqd's HTTP API: size limits, depths, topics
    topics.py           which topics there are
    statistics.py       what waits in them
    administration.py   creates, empties, pauses or deletes a topic or a channel
    identity.py         which cluster it is
    local_broker.py     the private local broker: found, or started as a process

    consume/            messages from channels
    publish/            messages to topics
    protocol/           NSQ's V2 protocol, both sides, without I/O; session.py answers the broker's heartbeats

Events are logged to `qtools.client`; the commands decide how log lines look.
"""
