"""Archives, read.

verify_command.py verify_run.py  q-to-file verify: flags, run, table
verify.py                        compares an archive with its manifests
replay_command.py replay_run.py  q-to-file replay: flags and run
replay_plan.py                   which files are replayed, in what order, from where
replay_source.py                 files as one Source that knows how far it is confirmed
record_reader.py                 a file to its messages
decompressor.py                  compressed bytes to bytes, in bounded blocks
"""
