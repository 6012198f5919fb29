"""Requests and answers of the gateway.

asgi_app.py        the ASGI application: finds the handler, checks rights, reports errors
routes.py          every address: what it takes, what it answers
parameters.py      query parameters, declared once
openapi.py         /openapi.json, made from routes.py and parameters.py
capabilities.py    refuses what the engine cannot do
access.py          hosts, origins, tokens, rates: who may send a request
tokens.py          the token file
proxies.py         what a proxy in front changes
startup_checks.py  what must be true before the gateway listens
topics.py          /topics: depths of all topics and channels
page.py            the page and its files
"""
