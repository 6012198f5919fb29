"""NSQ's V2 protocol over TCP and unix sockets.

tcp_server.py           accepts clients on a listening socket
contract.py             what the parts of a client's connection need of each other, and of the server
client_transport.py     a client's socket: transforms, pending output, heartbeats (sent, and missing answers noticed)
client_connection.py    a client's commands, and what the broker does for each
subscriber_commands.py  SUB, RDY, FIN, REQ, TOUCH and CLS
client_states.py        which command a client may send in which state
client_upgrades.py      what a client asks for with IDENTIFY: TLS, compression
client_authorization.py what one client is authorized to do
pending_responses.py    responses in the order of the commands, each after the commit that it waits for
unfinished_commands.py  bounds the memory for commands that have not arrived whole
auth.py                 asks an auth server what a client may do
"""
