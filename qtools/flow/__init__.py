"""What happens between a source and a sink. Pure, but for the one loop in run.py.

contract.py     Source, Sink: what the loop needs of them
run.py          the one loop: read a batch, write it, acknowledge it; the orderly stop
gather.py       a source's batches collected by count, bytes, age
throttle.py     how many may pass now, given the time
lines.py        chunks ↔ delimited or length-prefixed messages
dedupe.py       which keys were seen, bounded, on disk
dedupe_key.py   a message's key, exact to the digit
expression.py   the filter language, a subset of jq: text → one Python function (expression_*.py are its parts)
filter.py       which messages pass, and with what body; a sink with a filter before it
routes.py       messages → topics: which routes match, with what body, to which topic
route_index.py  which conditions can be true for a message, without trying them all
routes_file.py  the routes file: TOML → routes, and the tests in it
dead_letter.py  a message that cannot be routed, as an envelope that says why, and back
formats.py      the formats in which messages leave, by name
envelope.py     a message with its metadata as JSON or msgpack, and back, without loss
"""
