"""RabbitMQ as an engine, by AMQP 0-9-1 with a protocol core of its own.

    engine.py       AmqpEngine: what a command gets for an amqp:// URL
    options.py      settings from flags, a URL's query, a profile → an engine
    settings.py     how to connect: credentials, vhost, TLS, times
    connection.py   one connection, and its channels
    kept_connection.py  the connection of a source or a publisher: opened again when it is lost
    topology.py     exchanges and queues: names, questions, declarations
    records.py      a message of AMQP as one of this project, and the other way round
    statistics.py   exchanges, and what waits in their queues, by the management's HTTP API

    consume/        messages from queues
    publish/        messages to exchanges
    protocol/       AMQP 0-9-1 as RabbitMQ speaks it, without I/O

A lost connection is opened again by engines/connections. Events are logged to `qtools.client`.
"""
