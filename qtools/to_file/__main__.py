"""`python -m qtools.to_file` is `q-to-file`."""

from qtools.to_file.command import main

main()
