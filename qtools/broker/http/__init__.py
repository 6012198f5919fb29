"""nsqd's HTTP API.

api.py      the ASGI application: requests in, nsqd's answers out
admin.py    topics and channels: create, delete, empty, pause
config.py   options that can be read and changed
history.py  points in time, and messages as `peek` shows them
"""
