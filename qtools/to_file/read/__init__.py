"""Reading archives: checking them, and putting their messages back into a topic.

verify_command.py verify_run.py  q-to-file verify: flags, run, table
verify.py                        compares the files of an archive with its manifests
chains.py                        whether the files of a log's partitions are all there
replay_command.py replay_run.py  q-to-file replay: flags and run
replay_plan.py                   which files are replayed, in what order, from where
replay_source.py                 files as one Source that knows how far it is confirmed
record_reader.py                 the messages of a file
decompressor.py                  compressed bytes to bytes, in bounded blocks
"""
