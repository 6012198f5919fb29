"""q-broker: an nsqd in Python, durable.

command.py options.py   the command line, and nsqd's options by nsqd's names
subcommands.py          `q-broker status`, `stop` and `check`
arguments.py            nsqd's command lines and configuration files
foreground.py           a broker that runs until a signal
daemon.py               starts the servers in order, and stops them in order
lookup.py               registers topics and channels with nsqlookupd
lock.py                 one process for each data directory
local_broker.py         the process of the private local broker
control.py              asks and stops the private local broker

core/     topics, channels and messages; no sockets
disk/     the durable store; write_failures.py handles a full disk
tcp/      NSQ's V2 protocol over TCP and unix sockets; client_transport.py sends heartbeats
http/     nsqd's HTTP API
observe/  statistics: /stats, /metrics, statsd
"""
