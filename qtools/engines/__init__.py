"""The engines: the message systems that qtools speaks to. Each is a folder.

contract.py  what a command may know of an engine
capabilities.py  what engines can do
requirements.py  what a run needs of its engines
administration.py  creates, empties, pauses and deletes topics and channels
run_end.py   ends a run by asking what is left; for the sources of engines
redelivery.py  deliveries that this process counts and delays; for the sources of engines
choice.py    the table of the engines; which broker a command uses: flags, addresses, the environment
url.py       a broker's address as a URL
peer_protocol.py  what speaks at an address where an engine got no answer
profiles.py  brokers by name, from the user's configuration file
connection_options.py  settings of a connection that every engine has: TLS, credentials, options by key
connections/  connections to a broker: opened, kept, closed, with TLS; no protocol
nsq/         NSQ: nsqd and nsqlookupd, and q-broker, which speaks the same protocol
kafka/       Kafka, on librdkafka
amqp/        RabbitMQ
jetstream/   NATS JetStream
redis/       Redis Streams, also of Valkey
"""
