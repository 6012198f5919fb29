"""Stores of whole files.

objects.py       a bucket: names and files in, objects out
directory.py     a directory, in the same way
remote_store.py  obstore's client of a bucket
credentials.py   S3 credentials from a profile, read again when they have changed
digests.py       sizes and checksums that a store's answer is compared with
store_errors.py  the library's exceptions as StoreErrors that say what to do
"""
