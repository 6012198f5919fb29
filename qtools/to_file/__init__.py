"""q-to-file: topics → files, locally or in an object store.

finished.py     what is known of a file that is whole and closed
ids.py          a hash over which messages are in a file, whatever their order
"""
