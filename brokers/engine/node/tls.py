"""The TLS listener: certificates from the environment, and who a client's certificate says it is.

``MQ_TLS_CERT`` and ``MQ_TLS_KEY`` (PEM files) switch it on. With ``MQ_TLS_CA`` clients may show certificates,
which must then be signed by that authority; with ``MQ_TLS_VERIFY=required`` they have to. A client with a
certificate may log in as the user that names, by the SASL mechanism EXTERNAL: ``MQ_TLS_LOGIN_FROM`` is
``distinguished_name`` (as RabbitMQ's ssl plugin has it by default) or ``common_name``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brokers.engine.config import ClusterConfig, ConfigError, NodeConfig

HANDSHAKE_TIMEOUT = 5.0
"""Seconds that a client has for the TLS handshake."""

_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_DISTINGUISHED, _COMMON = "distinguished_name", "common_name"
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "EMAILADDRESS",
    "generationQualifier": "GENERATIONQUALIFIER",
    "givenName": "GIVENNAME",
    "initials": "INITIALS",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "pseudonym": "PSEUDONYM",
    "serialNumber": "SERIALNUMBER",
    "stateOrProvinceName": "ST",
    "surname": "SN",
    "title": "T",
    "userId": "UID",
}
"""Attribute types as they are written in names (RFC 4514, section 3, and RabbitMQ's rabbit_cert_info)."""

Subject = Sequence[Sequence[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What the environment asks for. ``port`` is this node's."""

    cert: Path
    key: Path
    ca: Path | None
    verify: ssl.VerifyMode
    login_from: str
    port: int

    def context(self) -> ssl.SSLContext:
        """A server's context, TLS 1.2 at least. Raises ``ConfigError`` for files that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert, self.key)
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the TLS files cannot be used: {error}; check MQ_TLS_CERT ({self.cert}), MQ_TLS_KEY "
                f"({self.key}) and MQ_TLS_CA ({self.ca})"
            ) from error
        context.verify_mode = self.verify
        return context

    def user_of(self, certificate: Mapping[str, object] | None) -> str:
        """The user that a client's verified certificate (as ``getpeercert`` gives it) names; empty without."""
        subject = certificate.get("subject") if certificate else None
        if not isinstance(subject, tuple):
            return ""
        return common_name(subject) if self.login_from == _COMMON else distinguished_name(subject)


def tls_settings(config: ClusterConfig, me: NodeConfig, environment: Mapping[str, str]) -> TlsSettings | None:
    """The settings in ``environment``, None without any. Raises ``ConfigError`` for a part of them alone.

    With ``MQ_AMQPS_PORT`` node i of the cluster listens on that + i; without, downwards from the port below
    the first node's AMQP port (5671, 5670, 5669 beside 5672, 5673, 5674), as the ports above are taken.
    """
    names = {key: environment.get(f"MQ_TLS_{key}", "") for key in ("CERT", "KEY", "CA", "VERIFY")}
    if not names["CERT"] and not names["KEY"]:
        if any(names.values()):
            raise ConfigError("MQ_TLS_CA and MQ_TLS_VERIFY mean nothing without MQ_TLS_CERT and MQ_TLS_KEY")
        return None
    if not names["CERT"] or not names["KEY"]:
        raise ConfigError("TLS takes both MQ_TLS_CERT and MQ_TLS_KEY, each the path of a PEM file")
    verify = names["VERIFY"] or ("optional" if names["CA"] else "none")
    if verify not in _VERIFY:
        raise ConfigError(f"MQ_TLS_VERIFY must be none, optional or required, not {verify!r}")
    if verify != "none" and not names["CA"]:
        raise ConfigError(f"MQ_TLS_VERIFY={verify} needs MQ_TLS_CA, the authority of clients' certificates")
    login_from = environment.get("MQ_TLS_LOGIN_FROM", "") or _DISTINGUISHED
    if login_from not in (_DISTINGUISHED, _COMMON):
        raise ConfigError(f"MQ_TLS_LOGIN_FROM must be {_DISTINGUISHED} or {_COMMON}, not {login_from!r}")
    return TlsSettings(
        Path(names["CERT"]),
        Path(names["KEY"]),
        Path(names["CA"]) if names["CA"] else None,
        _VERIFY[verify],
        login_from,
        _port(config, me, environment.get("MQ_AMQPS_PORT", "")),
    )


def _port(config: ClusterConfig, me: NodeConfig, base: str) -> int:
    place = [node.id for node in config.nodes].index(me.id)
    if base and not (base.isascii() and base.isdigit()):
        raise ConfigError(f"MQ_AMQPS_PORT must be a port, not {base!r}")
    port = int(base) + place if base else config.nodes[0].amqp - 1 - place
    taken = {p for node in config.nodes if node.host == me.host for p in (node.amqp, node.peer, node.control)}
    if not 1 <= port <= 65535 or port in taken:
        raise ConfigError(
            f"the TLS port of {me.name} would be {port}, which is taken or no port; change MQ_AMQPS_PORT"
        )
    return port


def common_name(subject: Subject) -> str:
    """The common names of a subject, joined with commas where there are several."""
    return ",".join(value for part in subject for kind, value in part if kind == "commonName")


def distinguished_name(subject: Subject) -> str:
    """A subject as text, the last part first (RFC 4514, section 2), e.g. ``CN=anna,O=Example``."""
    parts = [
        "+".join(f"{_SHORT.get(kind, kind)}={_escape(value)}" for kind, value in part) for part in subject
    ]
    return ",".join(reversed(parts))


def _escape(value: str) -> str:
    escaped = "".join(f"\\{letter}" if letter in ',+"\\<>;' else letter for letter in value)
    if escaped.startswith(("#", " ")):
        escaped = f"\\{escaped}"
    if len(value) > 1 and escaped.endswith(" "):
        escaped = f"{escaped[:-1]}\\ "
    return escaped


def from_environment(config: ClusterConfig, me: NodeConfig) -> TlsSettings | None:
    """See ``tls_settings``."""
    return tls_settings(config, me, os.environ)
