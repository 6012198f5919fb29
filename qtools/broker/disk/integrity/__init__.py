"""Damage to the database: found, reported, repaired.

checksum.py  a CRC-32 for each row
damage.py    what cannot be read, by topic and range: logged, counted, kept in a file
opening.py   makes a damaged database usable when the broker starts
check.py     reads a whole database, and reports what is wrong
repair.py    copies what is readable into a new database
wal.py       whether SQLite's write-ahead log is whole
"""
