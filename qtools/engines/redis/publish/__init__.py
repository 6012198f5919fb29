"""Publishes to Redis Streams.

publisher.py  publishes; what was refused, what is sent again
add_queue.py  the commands that were sent or will be, in their order
"""
