"""Stores of whole files.

object_store.py    the contract of a store: names and files in, objects out; and what all stores share
bucket.py          a bucket of S3, GCS or Azure, through obstore
directory.py       a directory
opening.py         a URL or path to the store that it names
obstore_client.py  obstore's client of a bucket
credentials.py     S3 credentials from a profile, read again when the profile's files have changed
digests.py         the size and checksums of a file, to compare with the store's answer
store_errors.py    obstore's exceptions as StoreErrors that say what to do
"""
