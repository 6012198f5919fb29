"""The flags for schemas.

options.py  as click decorators
flags.py    to a decoder; imported only where one of them is given
"""
