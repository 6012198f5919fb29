"""q-admin: looks at topics and channels, and changes them.

command.py        the command line of q-admin itself
flags.py          the flags that its subcommands share
topics_command.py q-admin topics, and q-admin show
change_command.py q-admin create, delete, empty, pause, unpause
listing.py        asks for statistics, and prints them
changes.py        asks, and makes the changes
rows.py           statistics as rows: sorted, chosen by name
tables.py         rows as text in columns
top_command.py    q-admin top
top.py            one run of q-admin top
top_screen.py     what it shows, as lines of text
rates.py          rates and histories, from statistics at several times
keyboard.py       keys on a terminal
"""
