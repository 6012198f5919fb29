"""The manual: the pages of docs/, as man pages and as plain text. In: Markdown. Out: roff, or text for a terminal.

    document.py    Markdown → blocks
    roff.py        blocks → a man page
    text.py        blocks → text for a terminal or a pipe
    pages.py       where the pages are
    help.py        `qtools help`

The parser is markdown-it-py, which is maintained and small; only the two writers are ours. The converters that exist
as packages draw a table as a table: a table of flags becomes columns of a word a line at 80 characters, where a manual
has the flag and, indented below it, its meaning. They also write no plain text, which is needed where man is not
installed (containers), so that two converters would read the same pages in two ways.
"""
