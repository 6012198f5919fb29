"""q-bridge: topics → topics, filtered, routed, reshaped, across clusters.

command.py      flags → options → run
options.py      what a run needs, as plain data
work.py         one run: consumer, publishers, the loop, reload, what is said at the end
deliver.py      the Sink: plan, publish, dead-letter, count
once.py         --dedupe: what was sent is not sent again
planning.py     flags or a routes file → where messages go; reloaded on SIGHUP
feeding.py      refuses a bridge that would feed itself
look.py         --dry-run and --explain: where messages would go
explain.py      a message and the routes → why
"""
