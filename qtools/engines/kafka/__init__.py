"""Kafka as an engine, on confluent-kafka, which is the binding of librdkafka; no protocol code of our own.

    engine.py              KafkaEngine: what a command gets for a kafka:// URL
    options.py             options by key, from a URL's query, a profile or flags → an engine
    settings.py            how to connect → the configuration of librdkafka
    client_errors.py       librdkafka's errors as this project's, in plain sentences
    clients.py             makes librdkafka's clients, and asks what a cluster is
    publisher.py           publishes; one delivery report a message, none lost
    refusals.py            which messages of a publish were refused, and not only because of another one
    source.py              reads channels, which are consumer groups
    end_offsets.py         how much of some channels is left
    group_reader.py        the thread that reads and commits one consumer group
    thread_calls.py        calls that the reader's thread makes for others
    start_offsets.py       where partitions begin
    waiting_partitions.py  which partitions wait for a message that is not finished
    partition.py           one partition that is read: what is in flight, and how far it may be committed
    peek.py                shows what a channel has not finished
    statistics.py          topics, their depths, and the lag of their groups; deletes them

Partitions are read by librdkafka's threads; Python sees lists of messages. confluent-kafka is imported when a client is
made, and never for another engine's URL.
"""
