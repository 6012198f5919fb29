"""`python -m qtools.admin` is q-admin."""

from qtools.admin.command import main

main()
