"""The durable store: what was answered OK is on disk, in one sqlite database.

    database.py    the file: schema, opening, what is wrong with it;  worker.py a connection in a thread of its own
    store.py       DurableStore: one commit for everything that came meanwhile; what happens when a disk is full
    job.py         one transaction;  gathering.py for how many publishers it waits
    log.py         one topic: which blocks are there, and when the last channel is done with one
    backlog.py     one channel: what waits, and what has to be read;  hot.py what is in memory of it
    reserve.py     room for a full disk: a file that is given up, a journal of what was finished
    checksum.py    of each row;  damage.py what cannot be read any more
    opening.py     a sound database at the start;  check.py looks through one;  repair.py copies one;  wal.py its log
    reader.py      reading blocks;  restore.py everything as it was, when the broker starts
    progress.py    one block in one channel: what is finished, how often the rest was delivered, when it is due
    sweep.py       space given back: blocks that nobody needs, and how long finished ones are kept

Everything but worker.py runs in the broker's loop, and waits for nothing.
"""
