"""What the broker tells of itself.

stats.py    /stats: every topic, channel and client, as JSON or text
metrics.py  /metrics, for Prometheus
statsd.py   the counters, pushed to a statsd
"""
