"""`python -m qtools.tail` is `q-tail`."""

from qtools.tail.command import main

main()
