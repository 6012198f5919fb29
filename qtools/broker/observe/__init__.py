"""Statistics of the broker.

stats.py    /stats: every topic, channel and client, as JSON or text
metrics.py  /metrics, for Prometheus
statsd.py   the counters, sent to a statsd
"""
