"""The servers that the engine suite runs on, handled alike.

cluster.py    Cluster: what the suite needs of an engine's server
nsq.py        q-broker and nsqd
memory.py     the engine without a network
kafka.py      Apache Kafka
"""
