"""Redis Streams as an engine, also for Valkey.

protocol/  the protocol without I/O
"""
