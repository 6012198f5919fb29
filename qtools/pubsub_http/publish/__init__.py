"""/pub and /mpub.

endpoint.py         requests to messages, and the broker's answer to each request
body_messages.py    the body of /mpub to messages, with their keys and headers
publish_batcher.py  publishes what several requests bring in one command
fast_path.py        the plainest /pub, without the application
idempotency.py      Idempotency-Key: requests that were answered before
"""
