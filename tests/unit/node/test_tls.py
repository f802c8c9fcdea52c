"""What the environment asks of TLS, and the names in certificates."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from brokers.engine.config import ClusterConfig, ConfigError
from brokers.engine.node.tls import TlsSettings, common_name, distinguished_name, tls_settings

SUBJECT = (
    (("countryName", "DE"),),
    (("organizationName", "Example, Inc."),),
    (("commonName", "anna"), ("emailAddress", "a@b")),
)


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    return ClusterConfig.ensure(tmp_path, 3, 5672)


def settings(config: ClusterConfig, place: int = 0, **environment: str) -> TlsSettings | None:
    named = {"MQ_TLS_CERT": "c.pem", "MQ_TLS_KEY": "k.pem", **environment}
    return tls_settings(config, config.nodes[place], named)


def test_names() -> None:
    assert distinguished_name(SUBJECT) == r"CN=anna+EMAILADDRESS=a@b,O=Example\, Inc.,C=DE"
    assert common_name(SUBJECT) == "anna"
    assert distinguished_name(((("commonName", "#a "),),)) == r"CN=\#a\ "


def test_off_without_certificate(config: ClusterConfig) -> None:
    assert tls_settings(config, config.nodes[0], {}) is None


def test_ports_go_down_from_the_first_nodes_unless_one_is_given(config: ClusterConfig) -> None:
    for base, ports in (("", [5671, 5670, 5669]), ("6000", [6000, 6001, 6002])):
        found = [settings(config, place, MQ_AMQPS_PORT=base) for place in range(3)]
        assert [tls.port for tls in found if tls is not None] == ports


def test_who_is_asked_for_a_certificate(config: ClusterConfig) -> None:
    for ca, verify, mode in (
        ("", "", ssl.CERT_NONE),
        ("ca.pem", "", ssl.CERT_OPTIONAL),
        ("ca.pem", "required", ssl.CERT_REQUIRED),
    ):
        found = settings(config, MQ_TLS_CA=ca, MQ_TLS_VERIFY=verify)
        assert found is not None
        assert found.verify is mode


def test_users_come_from_verified_certificates_only(config: ClusterConfig) -> None:
    found = settings(config, MQ_TLS_LOGIN_FROM="common_name")
    assert found is not None
    assert found.user_of({"subject": SUBJECT}) == "anna"
    assert found.user_of({}) == ""
    assert found.user_of(None) == ""


@pytest.mark.parametrize(
    "environment",
    [
        {"MQ_TLS_KEY": ""},
        {"MQ_TLS_CERT": "", "MQ_TLS_KEY": "", "MQ_TLS_CA": "ca.pem"},
        {"MQ_TLS_VERIFY": "required"},
        {"MQ_TLS_VERIFY": "maybe"},
        {"MQ_TLS_LOGIN_FROM": "serial"},
        {"MQ_AMQPS_PORT": "5670"},
        {"MQ_AMQPS_PORT": "many"},
    ],
)
def test_half_a_configuration_is_refused(config: ClusterConfig, environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="TLS|AMQPS"):
        settings(config, 2, **environment)


def test_missing_files_are_named(config: ClusterConfig) -> None:
    found = settings(config)
    assert found is not None
    with pytest.raises(ConfigError, match="c.pem"):
        found.context()
