"""`python -m qtools.pipe` is `q-pipe`."""

from qtools.pipe.command import main

main()
