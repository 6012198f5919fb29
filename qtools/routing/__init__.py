"""Routing: which topics a message goes to.

routes.py            messages to topics: which routes match, with what body, to which topic
route_index.py       which conditions can be true for a message, without evaluating each of them
routes_file.py       parses a routes file (TOML), and runs the tests in it
dead_letter.py       a message that failed, as an envelope with the reason, and back
dead_letter_sink.py  publishes such messages
"""
