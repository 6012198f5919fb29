"""Metrics and probes of a long-running command.

operations.py      starts and stops the server and the exporter below
metrics_server.py  /metrics, /healthz and /readyz over HTTP
statsd.py          metrics sent to a statsd
histogram.py       counts of values by size, such as latencies
metrics_format.py  metric families, and the text that Prometheus reads
metric_sets.py     the families that commands share
"""
