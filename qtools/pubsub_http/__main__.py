"""`python -m qtools.pubsub_http` is q-pubsub-http."""

from qtools.pubsub_http.command import main

main()
