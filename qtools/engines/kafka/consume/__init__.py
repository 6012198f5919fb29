"""Reads channels of Kafka, which are consumer groups.

source.py              reads channels: what a command gets
group_reader.py        the thread that reads and commits one consumer group
contract.py            what the two know of each other
thread_calls.py        calls that the reader's thread makes for others
partition.py           one partition that is read: what is in flight, and how far it may be committed
waiting_partitions.py  which partitions wait for a message that is not finished
start_offsets.py       where partitions begin
end_offsets.py         how much of some channels is left
peek.py                shows what a channel has not finished
"""
