"""`python -m qtools.soak` is `qtools soak`."""

from qtools.soak.command import main

main()
