"""q-bridge: topics to topics, filtered, routed, reshaped, across clusters.

command.py          flags to options
flags.py            checks the flags together
options.py          what a run needs, as plain data
app.py              one run: consumer, publishers, the loop, reload, the summary
sink.py             the Sink: plan, publish, dead-letter, count
routing.py          flags or a routes file to a Planner; read again on SIGHUP
dedupe.py           --dedupe: a key that was sent is not sent again
lost_attributes.py  warns that the destination has no keys and headers
loop_guard.py       refuses a bridge that would feed itself
dry_run.py          --dry-run and --explain
explain.py          why a message goes where it goes
"""
