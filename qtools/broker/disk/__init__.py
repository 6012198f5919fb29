"""The durable store: what was answered OK is on disk, in one SQLite database.

database.py         the file: its schema, how it is opened, what can be wrong with it
database_thread.py  a connection in a thread of its own; everything else runs in the event loop and never waits
store.py            DurableStore: one commit for everything that arrived meanwhile; what happens on a full disk
transaction.py      one transaction
group_commit.py     how many publishers a commit waits for
topic_log.py        one topic: which blocks there are, and when the last channel is done with one
reader.py           reads blocks
restore.py          builds topics and channels from the database when the broker starts
retention.py        deletes blocks that no channel needs, and keeps finished ones as long as --retain says
reserve.py          space kept free for a full disk, and a journal of what was finished meanwhile

channel/            what one channel has on disk and in memory
integrity/          checksums, damage, repair
"""
