"""TLS with an authority of the test's own: encrypted connections, client certificates, SASL EXTERNAL."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pika
import pytest

from tests.cluster.clients import get
from tests.cluster.harness import Cluster


class Authority:
    """Signs certificates; ``make(name)`` gives the paths of one and its key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.cert = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=Test Authority", "-keyout", str(self._key), "-out", str(self.cert)),
        )

    def make(self, subject: str) -> tuple[Path, Path]:
        place = self._folder / subject.replace("/", "_")
        request, key, cert = (place.with_suffix(suffix) for suffix in (".csr", ".key", ".pem"))
        _openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.cert), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", str(cert)),
        )
        return cert, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def secure(authority: Authority, make_cluster: Callable[..., Cluster]) -> Cluster:
    cert, key = authority.make("/CN=127.0.0.1")
    environment = {"MQ_TLS_CERT": str(cert), "MQ_TLS_KEY": str(key), "MQ_TLS_CA": str(authority.cert)}
    return make_cluster(env=environment).start()


def connect(
    cluster: Cluster, node: int, authority: Authority, certificate: tuple[Path, Path] | None, external: bool
) -> pika.BlockingConnection:
    context = ssl.create_default_context(cafile=str(authority.cert))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    credentials = (
        pika.credentials.ExternalCredentials() if external else pika.PlainCredentials("guest", "guest")
    )
    port = cluster.config.nodes[0].amqp - 1 - node
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1", port, credentials=credentials, ssl_options=pika.SSLOptions(context, "127.0.0.1")
        )
    )


def test_any_node_speaks_tls(secure: Cluster, authority: Authority) -> None:
    body = b"x" * 1_000_000
    for node in range(3):
        connection = connect(secure, node, authority, None, external=False)
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "q", body)
        assert get(channel, "q")[2] == body
        connection.close()


def test_a_certificate_logs_in_its_user(secure: Cluster, authority: Authority) -> None:
    user = "CN=anna,O=Example"
    anna = authority.make("/O=Example/CN=anna")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(secure, 1, authority, anna, external=True)
    secure.control.call("set_user", {"name": user})
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    secure.control.call("set_permissions", {"user": user, "vhost": "/", **everything})
    for node in range(3):
        connection = connect(secure, node, authority, anna, external=True)
        channel = connection.channel()
        channel.queue_declare("", exclusive=True)
        channel.basic_publish("", "none", b"", pika.BasicProperties(user_id=user))
        connection.process_data_events(0.05)
        assert channel.is_open
        connection.close()


def test_strangers_certificates_are_refused(secure: Cluster, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other").make("/CN=guest")
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(secure, 0, authority, stranger, external=True)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(secure, 0, authority, None, external=True)
