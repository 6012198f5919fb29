"""What happens between a source and a sink. Pure rules, except for the loop in loop.py.

contract.py    Source and Sink: what the loop needs of both ends
loop.py        the loop: read a batch, write it, acknowledge it; and the orderly stop
gather.py      collects a source's batches by count, bytes and age
ledger.py      how far an input is confirmed, when its messages are finished in any order
throttle.py    how many messages may pass now, given the time
filter.py      which messages pass, and with what body; a sink with a filter in front of it
dedupe.py      which keys were seen before: bounded, and kept on disk
dedupe_key.py  a message's key, exact to the digit
"""
