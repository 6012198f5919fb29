"""qtools: small, independent commands for message queues, in the UNIX manner.

They connect to the message systems of engines/, or to q-broker, the embedded broker. The layout:

    errors.py names.py message.py attributes.py paths.py times.py
                  the base: plain data and rules, imported by everything
    sockets.py    opens sockets to listen on; loads certificates; why a connection failed
    host_port.py  splits an address into host and port
    descriptors.py  writes all bytes of a block to a file descriptor
    hard_links.py  gives a complete file its name
    durations.py  a length of time as people write it
    imports.py    imports slow modules in a thread
    receive_buffer.py  bytes that have arrived and are not parsed yet
    backoff.py    the delay before the next attempt
    entry.py      the console scripts
    formats/      raw lines, length32, envelope, msgpack: bytes to messages, and back
    schemas/      Avro, Protobuf, JSON Schema: bytes to JSON values, and back; the client of a schema registry
    expressions/  the filter language, a subset of jq: text to one Python function
    routing/      routes files: messages to topics; dead letters
    flow/         what happens between a source and a sink: the loop, batches, rates, filter, dedupe
    engines/      the message systems: which broker a URL or a profile names; nsq/, with its protocol
    web/          HTTP served: the server, its limits, what a client has taken
    broker/       q-broker, an nsqd in Python
    manual/       docs/ as man pages and as `qtools help`
    cli/          what the commands share: options, types, logs, progress line, signals, metrics
    pipe/ tail/ bridge/ to_file/ exec/ admin/ pubsub_http/ soak/
                  the commands: command.py parses, app.py runs; the files beside them know what only this command knows

Imports go one way, and tests/test_layers.py checks it: base ← formats, expressions ← flow ← routing; base ← engines;
base ← cli; base ← web ← broker. A command imports these, but never another command, a protocol or the broker. Two files
are exceptions: cli/broker.py makes an engine's settings from the shared flags, and cli/options.py makes a filter.
"""

__version__ = "0.1.0"
