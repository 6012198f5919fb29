"""The durable store: a message whose publisher got OK is on disk, in one SQLite database.

database.py         the file: its schema, how it is opened, what can be wrong with it
database_thread.py  a connection in a thread of its own; everything else runs in the event loop and never waits
store.py            DurableStore: one commit for everything that arrived meanwhile
pending_writes.py   everything that the next transaction writes
transaction.py      one transaction
group_commit.py     how many publishers a commit waits for
write_failures.py   what happens while the disk refuses writes: a full disk, an I/O error
reserve.py          space kept free for a full disk, and a journal of what consumers finish meanwhile
topic_log.py        one topic: which blocks it has, and when the last channel has finished one
reader.py           reads blocks
read_failures.py    what happens when blocks cannot be read
read_patience.py    whether a read that failed means damage, or is tried again
restore.py          builds topics and channels from the database when the broker starts
retention.py        deletes blocks that no channel needs, and keeps finished ones as long as --retain says
maintenance.py      work that is done now and then: retention, and giving unused space back

channel/            what one channel has on disk and in memory
integrity/          checksums, damage, repair
"""
