"""The CA in files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane import limits
from controlplane.domain.errors import CredentialError, FieldInvalidError, Reason, StorageError
from controlplane.domain.ids import AgentId
from controlplane.identity import files
from controlplane.identity.authority import SERVER_NAME, LocalAuthority, create_ca
from controlplane.identity.peers import parse_peer
from tests.support.wire import Box

NOW = datetime.now(UTC).replace(microsecond=0)
ST_1 = AgentId("st-1")


@pytest.fixture
def authority(tmp_path: Path) -> LocalAuthority:
    create_ca(tmp_path, now=NOW)
    return LocalAuthority(tmp_path, agent_certificate_ttl=timedelta(days=30))


@pytest.fixture
def box() -> Box:
    return Box(name="st-1", ca_certificate=b"")


def test_a_ca_is_made_once(tmp_path: Path) -> None:
    assert create_ca(tmp_path, now=NOW)
    before = (tmp_path / "ca.pem").read_bytes()
    assert not create_ca(tmp_path, now=NOW)
    assert (tmp_path / "ca.pem").read_bytes() == before


def test_a_certificate_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    create_ca(tmp_path, now=NOW)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(StorageError) as refusal:
        create_ca(tmp_path, now=NOW)
    assert "backup" in refusal.value.remedy


def test_a_signed_certificate_is_read_back_as_what_was_stored(authority: LocalAuthority, box: Box) -> None:
    signed = authority.sign(box.csr(), agent_id=ST_1, now=NOW)
    assert parse_peer(signed.certificate_pem.encode()) == signed.certificate
    assert signed.certificate.expire_time == NOW + timedelta(days=30)
    assert signed.certificate.public_key_sha256 == authority.public_key_sha256(box.csr())


def test_a_certificate_is_for_a_client_alone_and_verifies_against_the_ca(authority: LocalAuthority, box: Box) -> None:
    signed = authority.sign(box.csr(), agent_id=ST_1, now=NOW)
    certificate = x509.load_pem_x509_certificate(signed.certificate_pem.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_certificate_pem.encode()))
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_serials_differ(authority: LocalAuthority, box: Box) -> None:
    serials = {authority.sign(box.csr(), agent_id=ST_1, now=NOW).certificate.serial for _ in range(20)}
    assert len(serials) == 20


def _rsa_request() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _other_curve_request() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _broken_signature() -> bytes:
    request = bytearray(Box(name="x", ca_certificate=b"").csr())
    request[-1] ^= 1
    return bytes(request)


@pytest.mark.parametrize(
    "csr",
    [b"", b"nonsense", _rsa_request(), _other_curve_request(), _broken_signature()],
    ids=["empty", "nonsense", "rsa", "other curve", "broken signature"],
)
def test_a_request_that_is_not_right_is_refused(authority: LocalAuthority, csr: bytes) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        authority.sign(csr, agent_id=ST_1, now=NOW)
    assert refusal.value.field == "csr_der"
    with pytest.raises(FieldInvalidError):
        authority.public_key_sha256(csr)


@pytest.mark.parametrize("pem", [b"", b"nonsense"])
def test_what_is_no_certificate_names_no_agent(pem: bytes) -> None:
    with pytest.raises(CredentialError) as refusal:
        parse_peer(pem)
    assert refusal.value.reason is Reason.CERTIFICATE_INVALID


def test_the_servers_certificate_and_the_cas_name_no_agent(authority: LocalAuthority, tmp_path: Path) -> None:
    authority.ensure_server_certificate((), now=NOW)
    for name in ("server.pem", "ca.pem"):
        with pytest.raises(CredentialError):
            parse_peer((tmp_path / name).read_bytes())


def test_the_servers_certificate_carries_the_name_that_clients_expect(
    authority: LocalAuthority, tmp_path: Path
) -> None:
    assert authority.ensure_server_certificate(("ctl.example.com", "192.0.2.7"), now=NOW)
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {SERVER_NAME, "localhost", "ctl.example.com"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "192.0.2.7"} <= {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}


def test_the_servers_certificate_is_issued_anew_when_it_must_be_and_only_then(
    authority: LocalAuthority, tmp_path: Path
) -> None:
    authority.ensure_server_certificate((), now=NOW)
    key = (tmp_path / "server.key").read_bytes()
    assert not authority.ensure_server_certificate((), now=NOW)
    assert authority.ensure_server_certificate(("192.0.2.7",), now=NOW)
    late = NOW + limits.SERVER_CERTIFICATE_TTL - limits.SERVER_CERTIFICATE_RENEW_BEFORE + timedelta(days=1)
    assert authority.ensure_server_certificate((), now=late)
    assert (tmp_path / "server.key").read_bytes() == key


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(StorageError) as refusal:
        files.write_secret(tmp_path / "key", b"secret")
    assert refusal.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
