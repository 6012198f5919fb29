"""Publishes to Kafka.

publisher.py  publishes; one delivery report a message, none lost
refusals.py   which messages of a publish were refused, and not only because of another one
"""
