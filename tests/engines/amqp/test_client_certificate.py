"""EXTERNAL: the broker takes the user from the client's certificate, and needs no password."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.certificates import Certificates
from harness.rabbitmq import VHOST, RabbitNode, why_not

from qtools.engines.connection_options import ConnectionFlags
from qtools.errors import StartError
from tests.engines.reading import bodies_of, drain, publish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

USER = "client@example.org"  # in the certificate
SETTINGS = {
    "auth_mechanisms.1": "EXTERNAL", "auth_mechanisms.2": "PLAIN", "ssl_options.verify": "verify_peer",
    "ssl_options.fail_if_no_peer_cert": "false", "ssl_cert_login_from": "subject_alternative_name",
    "ssl_cert_login_san_type": "email", "ssl_cert_login_san_index": 0,
}  # fmt: skip


@pytest.mark.usefixtures("_nothing_is_left_behind")
async def test_a_client_certificate(tmp_path: Path, certificates: Certificates, topic: str) -> None:
    if reason := why_not():
        pytest.skip(reason)
    from tests.engines.clusters.rabbitmq import RabbitCluster

    made = RabbitCluster(tmp_path)
    made.node = RabbitNode(tmp_path, plugins=["rabbitmq_auth_mechanism_ssl"])
    made.node.secure(certificates, SETTINGS)
    made.fields = {"tls_ca": str(certificates.ca), "tls": True}
    own = {"tls_cert": str(certificates.client_cert), "tls_key": str(certificates.client_key)}
    external = {"sasl_mechanism": "EXTERNAL"}
    try:
        made.start()
        await made.make_topic(topic, "own")
        engine = made.engine(ConnectionFlags(own, external))
        with pytest.raises(StartError, match="ACCESS_REFUSED"):
            await publish(engine, topic, [b"a"])
        made.node.api("PUT", f"/users/{USER}", {"password_hash": "", "tags": ""})
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        made.node.api("PUT", f"/permissions/{VHOST}/{USER}", rights)
        await publish(engine, topic, [b"a"])
        assert bodies_of(await drain(engine, topic)) == [b"a"]
        other = {"tls_cert": str(certificates.strange_cert), "tls_key": str(certificates.strange_key)}
        with pytest.raises(StartError, match=r"127\.0\.0\.1"):
            await publish(made.engine(ConnectionFlags(other, external)), topic, [b"a"])
    finally:
        made.close()
