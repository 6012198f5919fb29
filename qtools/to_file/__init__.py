"""q-to-file: topics → files, locally or in an object store.

command.py      flags → options → run
options.py      what a run needs, as plain data
work.py         one run: consumer, sink, the loop, when it ends
topics.py       the topics that a pattern means, now and later
sink.py         the archive as a Sink: one thread for disks, patience where they are full
archive.py      all files that are open, and those to be closed
sort.py         a batch sorted by topic and partition
layout.py       what files are called, and where they belong
workfile.py     a file that grows in the work directory, until it is whole
note.py         what is durably known of it
compress.py     how it is compressed
workdir.py      whose the work directory is, and what the last run left there
place.py        a whole file is given its name, and never another's
finished.py     what is known of a file that is whole and closed
ids.py          a hash over which messages are in a file, whatever their order
"""
