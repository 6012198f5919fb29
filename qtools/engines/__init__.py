"""The engines: the message systems that qtools speaks to. Each is a folder; NSQ is the only one so far.

nsq/    NSQ: nsqd and nsqlookupd, and q-broker, which speaks the same protocol
"""
