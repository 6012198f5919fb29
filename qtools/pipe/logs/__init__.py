"""Logs that are rotated while they are read.

rotation.py       which files of a log are read, in what order, and from where: rules only
rotated_names.py  the names of rotated files
rotated_files.py  the rotated files that exist
log_file.py       one file of a log, and how it is recognized
open_files.py     the open files of one log, over its rotations
rotating_log.py   one log as chunks
log_reader.py     all logs as chunks
"""
