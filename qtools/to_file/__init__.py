"""q-to-file: topics → files, locally or in an object store; archives checked, and put back.

command.py      (flags.py) flags → options → run
options.py      what a run needs, as plain data
work.py         one run: consumer, sink, the loop, when it ends
topics.py       the topics that a pattern means, now and later
sink.py         the archive as a Sink: one thread for disks, patience where they are full
archive.py      all files that are open, and those to be closed
sort.py         a batch sorted by topic and partition
layout.py       what files are called, and where they belong
complete.py completing.py      which partitions are complete, and marking them
deduped.py      what producers sent twice, once
workfile.py     a file that grows in the work directory, until it is whole
note.py         what is durably known of it
compress.py     how it is compressed
workdir.py      whose the work directory is, and what the last run left there
place.py        a whole file is given its name, and never another's
finished.py     what is known of a file that is whole and closed
ids.py          a hash over which messages are in a file, whatever their order

Object stores:

sinks.py        where an archive goes: a directory, a spool before a store, or a store
spool.py        an archive that is uploaded: local files are the safe place
direct.py       an archive without a local disk
upload.py       files in a spool → objects, each once, whatever dies meanwhile
objects.py      a place for whole files: a bucket
directory.py    the same, a directory
store_errors.py what an object store's library raises, in one line that says what to do
remote_store.py the library's client of a bucket
credentials.py  S3 credentials from a profile, read again when they have changed
digests.py      what a store's answer is held against
manifest.py     what an archive says of itself

Reading an archive:

verify_command.py check.py     `q-to-file verify`: flags → options → a table
verify.py                      an archive held against its manifests
replay_command.py replay.py    `q-to-file replay`: flags → options → run
plan.py replay_source.py       which files, in what order, from where; and as a Source that knows how far it is
moment.py                      a point in time, as people write it
reading.py inflate.py          a file → its messages
"""
