"""qtools: small, independent commands for message queues, in the UNIX manner.

They speak NSQ's protocol: to any nsqd / nsqlookupd cluster, or to q-broker, which comes along. The house:

    errors.py names.py message.py places.py times.py    the base: plain data, imported by all
    listen.py    of the base too: the one way to open a socket to listen on
    protocol/    bytes ↔ meaning; no sockets, no clock, no async
    flow/        what happens between a source and a sink; pure, but for the one loop in run.py
    client/      the rooms with sockets: connection, consumer, publisher, discovery
    web/         HTTP served: the door, its limits, what a client has taken of an answer
    broker/      an nsqd in Python
    manual/      docs/ as man pages and as `qtools help`
    entry.py     the console scripts: a command is imported once Ctrl-C ends it quietly
    cli/         what the commands share: options, types, logs, the progress line, signals, metrics
    pipe/ tail/ bridge/ to_file/ pubsub_http/
                 the commands: command.py parses, the files beside it know what only this command knows

Imports go one way, and tests/test_layers.py checks it: base ← protocol ← client, broker; base ← flow;
base ← cli; base ← web ← broker; a command imports base, cli, flow, client (and q-pubsub-http web), never another
command, protocol or broker. One file stands across: cli/options.py turns the shared flags into the client's
settings and a filter, and imports client and flow for that.
"""

__version__ = "0.1.0"
