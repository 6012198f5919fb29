"""/sub, /message and the acknowledgements of clients.

http_stream.py       /sub as an HTTP stream
websocket.py         /sub as a WebSocket
get_message.py       /message: one message
subscribe_params.py  what a subscriber asks for
delivery.py          one client's stream: what was sent, taken and finished
rendered_batch.py    a batch in the client's format, rendered once for all clients
consumers.py         consumers for streams
fanout.py            one temporary channel for all subscribers of a topic without a channel
sessions.py          unfinished messages of clients with ack=client
acknowledge.py       /finish, /requeue, /touch
resume.py            event streams that reconnect with a Last-Event-ID
stream_memory.py     the memory that a stream uses, for the memory budget
"""
