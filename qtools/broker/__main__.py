"""`python -m qtools.broker` is q-broker."""

from qtools.broker.command import main

main()
