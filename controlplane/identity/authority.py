"""The CA: an EC P-256 key and its certificate in `pki/`, the server's certificate, and agents' certificates.

Agents' certificates name one agent in a URI SAN and serve as client certificates only; what names a request
asks for is ignored. The server's certificate carries one fixed DNS name, which every client of ours expects,
so the controller can be reached by any address.
"""

import hashlib
import ipaddress
import socket
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane import limits
from controlplane.app.ports import SignedCertificate
from controlplane.domain.errors import FieldInvalidError, StorageError
from controlplane.domain.identity import AgentCertificate
from controlplane.domain.ids import AgentId
from controlplane.identity import files

SERVER_NAME: Final = "controlplane.lineside.internal"
"""Every client of ours expects this name, whatever address it dials."""

AGENT_URI_PREFIX: Final = "spiffe://lineside/agents/"

CLOCK_SKEW: Final = timedelta(minutes=5)
"""Certificates are valid a little earlier than they are made: a station's clock may be behind."""


def create_ca(pki_dir: Path, *, now: datetime) -> bool:
    """Make the CA's key and certificate; return False when both are there. The certificate is written last, so
    an interrupted run is simply repeated."""
    if (pki_dir / "ca.pem").exists() and (pki_dir / "ca.key").exists():
        return False
    if (pki_dir / "ca.pem").exists():
        raise StorageError(
            f"{pki_dir} has the CA's certificate and not its key",
            remedy="restore pki/ca.key from a backup; a new CA would lock every agent out",
        )
    files.make_folder(pki_dir)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Lineside CA")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + limits.CA_CERTIFICATE_TTL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    files.write_secret(pki_dir / "ca.key", _key_pem(key))
    files.write_public(pki_dir / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return True


class LocalAuthority:
    """Signs with the CA's key in `pki_dir`. Passes the contract of ports.CertificateAuthority."""

    def __init__(self, pki_dir: Path, *, agent_certificate_ttl: timedelta) -> None:
        self._pki_dir = pki_dir
        self._ttl = agent_certificate_ttl
        self._certificate = _load_certificate(pki_dir / "ca.pem")
        self._key = _load_key(pki_dir / "ca.key")

    @property
    def ca_certificate_pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def ca_certificate_der(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, csr_der: bytes, *, agent_id: AgentId, now: datetime) -> SignedCertificate:
        public_key = _read_request(csr_der)
        expire_time = min((now + self._ttl).replace(microsecond=0), self._certificate.not_valid_after_utc)
        certificate = (
            self._builder(public_key, now=now, expire_time=expire_time)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agent_id)]))
            .add_extension(_alternative_names([x509.UniformResourceIdentifier(AGENT_URI_PREFIX + agent_id)]), False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return SignedCertificate(
            certificate=AgentCertificate(
                serial=serial_text(certificate.serial_number),
                agent_id=agent_id,
                public_key_sha256=key_sha256(public_key),
                not_before=certificate.not_valid_before_utc,
                expire_time=expire_time,
            ),
            certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            ca_certificate_pem=self.ca_certificate_pem,
        )

    def public_key_sha256(self, csr_der: bytes) -> str:
        return key_sha256(_read_request(csr_der))

    def ensure_server_certificate(self, hosts: Iterable[str], *, now: datetime) -> bool:
        """Issue `server.pem` unless the one that is there names all hosts and is far from its end; return
        whether it was issued. The key is made once and kept."""
        wanted = {SERVER_NAME, "localhost", "127.0.0.1", "::1", socket.gethostname(), *hosts} - {"", "0.0.0.0", "::"}
        key = self._server_key()
        if self._server_certificate_serves(wanted, key.public_key(), now=now):
            return False
        expire_time = min(now + limits.SERVER_CERTIFICATE_TTL, self._certificate.not_valid_after_utc)
        certificate = (
            self._builder(key.public_key(), now=now, expire_time=expire_time)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)]))
            .add_extension(_alternative_names(map(_host_name, sorted(wanted))), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files.write_public(self._pki_dir / "server.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return True

    def _server_key(self) -> ec.EllipticCurvePrivateKey:
        path = self._pki_dir / "server.key"
        if not path.exists():
            files.write_secret(path, _key_pem(ec.generate_private_key(ec.SECP256R1())))
        return _load_key(path)

    def _server_certificate_serves(
        self, wanted: set[str], public_key: ec.EllipticCurvePublicKey, *, now: datetime
    ) -> bool:
        path = self._pki_dir / "server.pem"
        if not path.exists():
            return False
        certificate = _load_certificate(path)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        named = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
        return (
            wanted <= named
            and certificate.public_key() == public_key
            and certificate.issuer == self._certificate.subject
            and certificate.not_valid_after_utc - now > limits.SERVER_CERTIFICATE_RENEW_BEFORE
        )

    def _builder(
        self, public_key: ec.EllipticCurvePublicKey, *, now: datetime, expire_time: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(expire_time)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def serial_text(serial: int) -> str:
    """Return a serial number as the store keeps it."""
    return format(serial, "x")


def _read_request(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_der_x509_csr(csr_der)
        public_key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise _request_refused("not a certificate request in DER") from error
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
        raise _request_refused("the key is not on the curve P-256")
    if not valid:
        raise _request_refused("the request is not signed with its own key")
    return public_key


def _request_refused(message: str) -> FieldInvalidError:
    return FieldInvalidError(
        message, field="csr_der", remedy="send a PKCS #10 request in DER for an EC P-256 key, signed with that key"
    )


def key_sha256(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return the digest by which the store knows a key."""
    encoded = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def _alternative_names(names: Iterable[x509.GeneralName]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(list(names))


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    assert isinstance(key, ec.EllipticCurvePrivateKey), "we make no other keys"
    return key


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError(f"cannot read {path}: {error}", remedy="run `lineside-controlplane init`, or restore it")
