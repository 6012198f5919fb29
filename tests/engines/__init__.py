"""One suite for all engines, on real servers, and the tests of what chooses an engine.

Each test of the suite runs once for every engine in conftest.py (KINDS), and uses nothing but the contract
(qtools/engines/contract.py). What only one engine has is tested in its own folder, nsq/ or kafka/.

    test_publish.py        what is published is in the topic once: bodies, keys and headers, refused messages, delays
    test_acknowledge.py    finish in any order, requeue with a delay, attempts, touch, what is not finished at the end
    test_ends.py           exact limits, what is in flight, until empty, until now, idle, paused
    test_looks.py          topics, depths, peek, since, identity
    test_capabilities.py   what an engine cannot do is refused by name
    test_members.py        two channels, two members of one, a member that joins while messages are in flight
    test_faults.py         the server restarts, is killed, is frozen; the client is killed
    test_security.py       TLS and passwords: right, wrong, missing, and a port of the other kind
    reading.py             what the tests share: publish, read, drain
    client.py              a reader and a publisher as a process of their own, to be killed
    memory.py              an engine without a network
    clusters/              the servers, one class for each engine

Another engine needs one class: a subclass of clusters.cluster.Cluster, whose docstring lists what it provides, and one
line in KINDS.
"""
