"""What real servers sent: nats-server 2.15.1 and 2.9.10, byte by byte, with their events checked by hand."""

from __future__ import annotations

# nats-server 2.15.1
NEW: dict[str, bytes] = {
    "info_1": (
        b'INFO {"server_id":"NDIIR5TOHTZ7QPSEFMKK6NXASNFQQLHVFUCANCCNWGUEBUIPQMJ6ZQ6S","server_name":"NDIIR5TO'
        b'HTZ7QPSEFMKK6NXASNFQQLHVFUCANCCNWGUEBUIPQMJ6ZQ6S","version":"2.15.1","proto":1,"git_commit":"b2fd3ef'
        b'","go":"go1.27.2","host":"127.0.0.1","port":60817,"headers":true,"max_payload":1048576,"jetstream":t'
        b'rue,"client_id":5,"client_ip":"127.0.0.1","api_lvl":5,"xkey":"XCFID62USHXFWZN2WXMGEWL7RNTUXAJ2BARC54'
        b'SQVZK3J2BFWA3TYLPT"} \r\n'
    ),
    "no_responders_1": (b"HMSG _INBOX.q.a 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n"),
    "pub_ack_1": (b'MSG _INBOX.q.1 1 23\r\n{"stream":"EV","seq":1}\r\n'),
    "hpub_1": (b'MSG _INBOX.q.2 1 23\r\n{"stream":"EV","seq":2}\r\n'),
    "hpub_2": (b'MSG _INBOX.q.3 1 41\r\n{"stream":"EV","seq":2,"duplicate": true}\r\n'),
    "next_1": (
        b"MSG ev.a 1 $JS.ACK.EV.own.1.1.1.1795969502145430871.1 5\r\n"
        b"hello\r\n"
        b"HMSG ev.a 1 $JS.ACK.EV.own.1.2.2.1795969502446177995.0 29 31\r\n"
        b"NATS/1.0\r\n"
        b"Nats-Msg-Id: m1\r\n"
        b"\r\n"
        b"hi\r\n"
        b"HMSG _INBOX.q.n1 1 28 28\r\n"
        b"NATS/1.0 404 No Messages\r\n"
        b"\r\n"
        b"\r\n"
    ),
    "next_2": (b"HMSG _INBOX.q.n2 1 28 28\r\nNATS/1.0 404 No Messages\r\n\r\n\r\n"),
    "next_3": (
        b"HMSG _INBOX.q.n3 1 75 75\r\n"
        b"NATS/1.0 100 Idle Heartbeat\r\n"
        b"Nats-Last-Consumer: 2\r\n"
        b"Nats-Last-Stream: 2\r\n"
        b"\r\n"
        b"\r\n"
        b"HMSG _INBOX.q.n3 1 75 75\r\n"
        b"NATS/1.0 100 Idle Heartbeat\r\n"
        b"Nats-Last-Consumer: 2\r\n"
        b"Nats-Last-Stream: 2\r\n"
        b"\r\n"
        b"\r\n"
        b"HMSG _INBOX.q.n3 1 75 75\r\n"
        b"NATS/1.0 100 Idle Heartbeat\r\n"
        b"Nats-Last-Consumer: 2\r\n"
        b"Nats-Last-Stream: 2\r\n"
        b"\r\n"
        b"\r\n"
        b"HMSG _INBOX.q.n3 1 82 82\r\n"
        b"NATS/1.0 408 Request Timeout\r\n"
        b"Nats-Pending-Messages: 10\r\n"
        b"Nats-Pending-Bytes: 0\r\n"
        b"\r\n"
        b"\r\n"
    ),
    "next_4": (
        b"MSG ev.a 1 $JS.ACK.EV.own.2.1.3.1795969502145430871.0 5\r\n"
        b"hello\r\n"
        b"HMSG ev.a 1 $JS.ACK.EV.own.2.2.4.1795969502446177995.0 29 31\r\n"
        b"NATS/1.0\r\n"
        b"Nats-Msg-Id: m1\r\n"
        b"\r\n"
        b"hi\r\n"
    ),
    "deleted_1": (
        b"HMSG _INBOX.q.n5 1 33 33\r\n"
        b"NATS/1.0 409 Consumer Deleted\r\n"
        b"\r\n"
        b"\r\n"
        b"MSG _INBOX.q.a 1 75\r\n"
        b'{"type":"io.nats.jetstream.api.v1.consumer_delete_response","success":true}\r\n'
    ),
    "limit_1": (b'MSG _INBOX.q.5 1 24\r\n{"stream":"LIM","seq":1}\r\n'),
    "limit_2": (
        b"MSG _INBOX.q.6 1 104\r\n"
        b'{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"LIM","seq'
        b'":0}\r\n'
    ),
    "limit_3": (
        b"MSG _INBOX.q.7 1 115\r\n"
        b'{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"stream"'
        b':"LIM","seq":0}\r\n'
    ),
    "error_1": (b"-ERR 'Unknown Protocol Operation'\r\n"),
}
# nats-server 2.9.10
OLD: dict[str, bytes] = {
    "info_1": (
        b'INFO {"server_id":"NCTA6FNOCVT5ZXJ73GGTLT5C4RUVIQTZ4NKEDIPEEKJ7G5WNVHQOLD74","server_name":"NCTA6FNO'
        b'CVT5ZXJ73GGTLT5C4RUVIQTZ4NKEDIPEEKJ7G5WNVHQOLD74","version":"2.9.10","proto":1,"go":"go1.19.8","host'
        b'":"127.0.0.1","port":49151,"headers":true,"max_payload":1048576,"jetstream":true,"client_id":4,"clie'
        b'nt_ip":"127.0.0.1"} \r\n'
    ),
    "no_responders_1": (b"HMSG _INBOX.q.a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"),
    "pub_ack_1": (b'MSG _INBOX.q.1 1  24\r\n{"stream":"EV", "seq":1}\r\n'),
    "hpub_1": (b'MSG _INBOX.q.2 1  24\r\n{"stream":"EV", "seq":2}\r\n'),
    "hpub_2": (b'MSG _INBOX.q.3 1  42\r\n{"stream":"EV", "seq":2,"duplicate": true}\r\n'),
    "next_1": (
        b"MSG ev.a 1 $JS.ACK.EV.own.1.1.1.1795969516396607060.1 5\r\n"
        b"hello\r\n"
        b"HMSG ev.a 1 $JS.ACK.EV.own.1.2.2.1795969516697443647.0 29 31\r\n"
        b"NATS/1.0\r\n"
        b"Nats-Msg-Id: m1\r\n"
        b"\r\n"
        b"hi\r\n"
        b"HMSG _INBOX.q.n1 1  81 81\r\n"
        b"NATS/1.0 408 Request Timeout\r\n"
        b"Nats-Pending-Messages: 8\r\n"
        b"Nats-Pending-Bytes: 0\r\n"
        b"\r\n"
        b"\r\n"
    ),
    "next_2": (b"HMSG _INBOX.q.n2 1  28 28\r\nNATS/1.0 404 No Messages\r\n\r\n\r\n"),
    "next_3": (
        b"HMSG _INBOX.q.n3 1  75 75\r\n"
        b"NATS/1.0 100 Idle Heartbeat\r\n"
        b"Nats-Last-Consumer: 2\r\n"
        b"Nats-Last-Stream: 2\r\n"
        b"\r\n"
        b"\r\n"
        b"HMSG _INBOX.q.n3 1  75 75\r\n"
        b"NATS/1.0 100 Idle Heartbeat\r\n"
        b"Nats-Last-Consumer: 2\r\n"
        b"Nats-Last-Stream: 2\r\n"
        b"\r\n"
        b"\r\n"
        b"HMSG _INBOX.q.n3 1  75 75\r\n"
        b"NATS/1.0 100 Idle Heartbeat\r\n"
        b"Nats-Last-Consumer: 2\r\n"
        b"Nats-Last-Stream: 2\r\n"
        b"\r\n"
        b"\r\n"
        b"HMSG _INBOX.q.n3 1  82 82\r\n"
        b"NATS/1.0 408 Request Timeout\r\n"
        b"Nats-Pending-Messages: 10\r\n"
        b"Nats-Pending-Bytes: 0\r\n"
        b"\r\n"
        b"\r\n"
    ),
    "next_4": (
        b"MSG ev.a 1 $JS.ACK.EV.own.2.1.3.1795969516396607060.0 5\r\n"
        b"hello\r\n"
        b"HMSG ev.a 1 $JS.ACK.EV.own.2.2.4.1795969516697443647.0 29 31\r\n"
        b"NATS/1.0\r\n"
        b"Nats-Msg-Id: m1\r\n"
        b"\r\n"
        b"hi\r\n"
    ),
    "deleted_1": (
        b"HMSG _INBOX.q.n5 1  33 33\r\n"
        b"NATS/1.0 409 Consumer Deleted\r\n"
        b"\r\n"
        b"\r\n"
        b"MSG _INBOX.q.a 1 75\r\n"
        b'{"type":"io.nats.jetstream.api.v1.consumer_delete_response","success":true}\r\n'
    ),
    "limit_1": (b'MSG _INBOX.q.5 1  25\r\n{"stream":"LIM", "seq":1}\r\n'),
    "limit_2": (
        b"MSG _INBOX.q.6 1  104\r\n"
        b'{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"LIM","seq'
        b'":0}\r\n'
    ),
    "limit_3": (
        b"MSG _INBOX.q.7 1  115\r\n"
        b'{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"stream"'
        b':"LIM","seq":0}\r\n'
    ),
    "error_1": (b"-ERR 'Unknown Protocol Operation'\r\n"),
}
