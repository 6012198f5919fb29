"""NSQ's V2 protocol over TCP and unix sockets.

tcp_server.py         accepts clients on a listening socket
client_transport.py   a client's socket: transforms, heartbeats, output that waits to be written
client_connection.py  a client's commands, and what the broker does for each
pending_responses.py  responses in the order of the commands, each after the commit that it waits for
unfinished_commands.py  bounds the memory for commands that have not arrived whole
auth.py               asks an auth server what a client may do
"""
