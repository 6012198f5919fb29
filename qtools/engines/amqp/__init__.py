"""RabbitMQ, by AMQP 0-9-1. No command reaches it yet.

protocol/  AMQP 0-9-1 as RabbitMQ speaks it, without I/O
"""
