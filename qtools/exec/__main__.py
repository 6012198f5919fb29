"""`python -m qtools.exec` is q-exec."""

from qtools.exec.command import main

main()
