"""What the tests of the commands stand on: real programs, real brokers, and ways to break what is between them.

waiting.py        wait for a condition, with a deadline; nobody sleeps and hopes
shell.py          the installed programs as subprocesses, in an environment of their own, always reaped
ports.py          pairs of free ports that nothing else on the machine takes by chance
brokers.py        q-broker, nsqd and nsqlookupd, handled alike: start, stop, kill, fill, drain, ask
reader.py         NSQ's protocol spoken by hand, so that what is in a queue is not judged by the client under test
nats.py           nats-server, and NATS's own client to see what is in a stream
kafka.py          Apache Kafka: one node or several, killed and frozen
kafka_security.py Apache Kafka that listens with TLS and SASL
kafka_client.py   librdkafka's own clients, to see what is in a Kafka without the client under test
feeder.py         numbered lines for a program's stdin, as long as a test goes on
proxy.py          a TCP proxy that can cut, stall and refuse
seaweed.py        a real S3 server, and boto3 to look into it
terminal.py       a pseudo terminal
authority.py      an auth server
registry.py       a schema registry, small, and as a test says
apicurio.py       a schema registry, real
certificates.py   a CA and what it signs
"""
