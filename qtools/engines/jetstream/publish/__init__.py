"""Messages to subjects of JetStream, each confirmed by the stream that stores it.

publisher.py       the contract's Publisher: topics, sizes, what is refused, when a publish is over
publish_window.py  which messages are sent and not confirmed; without I/O
topic_streams.py   the streams of topics: found, or created
refusals.py        what the server's refusal of a message means
"""
