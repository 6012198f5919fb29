"""What happens between a source and a sink. Rules without I/O, except for the loop in loop.py.

contract.py      FlowSource and Sink: what the loop needs of both ends
json_values.py   the JSON value of a body, with every digit of a number; and back
variables.py     what a message has besides its body, for expressions: $key, $headers …
keying.py        gives messages keys and headers before they are published
topic_sink.py    a sink that publishes to one topic; a publish of several groups, and the messages that were refused
loop.py          the loop: read a batch, write it, acknowledge it; and the orderly stop
gather.py        joins batches up to a count, a size or an age; cuts one into requests
ledger.py        how far an input is confirmed, when its messages are finished in any order
steps.py         the interface of steps between a source and a sink; what becomes of messages on which one fails
stepped_sink.py  a sink with steps before it
throttle.py      how many messages may pass now, given the time
filter.py        which messages pass, and with what body
dedupe.py        which keys were seen before: a bounded number, stored on disk
dedupe_key.py    the key of a message, with every digit of a number
"""
