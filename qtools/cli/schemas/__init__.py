"""The flags for schemas.

options.py  as click decorators
flags.py    to a decoder or an encoder; imported only where one of them is given
"""
