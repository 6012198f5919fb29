"""`python -m qtools.bridge` is `q-bridge`."""

from qtools.bridge.command import main

main()
