"""Messages to exchanges.

publisher.py       publishes groups of messages: the Publisher of engines/contract.py
publish_channel.py the channel on which they are sent: confirms in a window, what is returned or refused
request.py         one publish: which of its messages are sent, confirmed, refused
confirm_window.py  which messages on a channel are not confirmed yet
exchanges.py       which exchanges exist, and those that are created
"""
