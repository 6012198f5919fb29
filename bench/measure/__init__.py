"""What bench/compare.py is made of.

launch.py      a small process that starts a command and tells what it took
processes.py   run a command and get its time, CPU and memory
events.py      the messages: a file of lines
brokers.py     nsqd and q-broker, started, filled, asked and stopped
rounds.py      runs in turns, and what follows from their numbers
jetstream.py nats_py.py  JetStream, beside NATS's own client for Python
streams.py     what is compared on JetStream and on Redis alike
sections.py    what is compared: pipe, tail, bridge, broker, start
bridging.py    the bridge's part of it
rabbitmq.py    RabbitMQ's part of it
redis.py       Redis's part of it
table.py       numbers as text
"""
