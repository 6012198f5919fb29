"""Files of an archive: they grow in a work directory, are finished, and get their final name.

archive.py       all files that are open, and those that have to be closed
partitioner.py   splits a batch by topic and partition
layout.py        file names and directories
partitions.py    which partitions are complete
archived_partitions.py  partitions of a log while they are archived: what is archived, and what may not be committed
output_chains.py  how far the partitions of a log are in an output directory
workdir.py       the work directory: its lock, and files of earlier runs
workfile.py      a file that grows until it is complete
journal.py       what is durably known of a file that grows
compression.py   gzip and zstd streams that are readable up to each flush
file_record.py   what is known of a finished file, and its sidecar
file_namer.py    gives finished files their names below an output directory
publish_file.py  gives a whole file its name, and never replaces another
content_hash.py  a hash over the ids of a file's messages, in any order
manifest.py      the manifests: one line of JSON for each file
"""
