"""Kafka as an engine, on confluent-kafka, which is the binding of librdkafka; no protocol code of our own.

    engine.py              KafkaEngine: what a command gets for a kafka:// URL
    options.py             options by key, from a URL's query, a profile or flags → an engine
    settings.py            how to connect → the configuration of librdkafka
    client_errors.py       librdkafka's errors as this project's, in plain sentences
    clients.py             makes librdkafka's clients, and asks what a cluster is
    statistics.py          topics, their depths, and the lag of their groups
    administration.py      creates, empties and deletes topics and groups

    consume/               channels, which are consumer groups: read, committed, looked into
    publish/               messages to topics, and which of them were refused

Partitions are read by librdkafka's threads; Python sees lists of messages. confluent-kafka is imported when a client is
made, and never for another engine's URL.
"""
