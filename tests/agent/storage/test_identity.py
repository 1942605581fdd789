"""Key and certificate on disk: the key first, the pair together, for its owner alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.app.ports import RenewedCertificate
from agent.domain.errors import EnrollmentError, Reason, StateError
from agent.storage import durable
from agent.storage.identity import IdentityFiles

CA_KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def sign(csr_der: bytes, *, days: int = 30, key: ec.EllipticCurvePublicKey | None = None) -> RenewedCertificate:
    request = x509.load_der_x509_csr(csr_der)
    assert request.is_signature_valid
    public_key = key or request.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=days))
        .sign(CA_KEY, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return RenewedCertificate(certificate_pem=pem, ca_certificate_pem="ca\n")


@pytest.fixture
def files(tmp_path: Path) -> IdentityFiles:
    return IdentityFiles(tmp_path / "pki", agent="st-1")


def public_key(csr_der: bytes) -> bytes:
    key = x509.load_der_x509_csr(csr_der).public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_repeated_enrolment_uses_the_same_key(tmp_path: Path, files: IdentityFiles) -> None:
    first = files.first_request()
    key = tmp_path / "pki" / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert public_key(IdentityFiles(tmp_path / "pki", agent="st-1").first_request()) == public_key(first)
    with pytest.raises(EnrollmentError) as caught:
        files.read()
    assert caught.value.reason is Reason.NOT_ENROLLED
    files.install_first(sign(first))
    assert files.read().ca_pem == b"ca\n"
    assert files.lifetime() == timedelta(days=30)
    assert files.expire_time() == NOW + timedelta(days=30)


def test_renewal_changes_key_and_certificate_together(tmp_path: Path, files: IdentityFiles) -> None:
    files.install_first(sign(files.first_request()))
    before = files.read()
    files.install(sign(files.new_request(), days=60))
    after = files.read()
    assert after.key_pem != before.key_pem
    assert files.lifetime() == timedelta(days=60)
    assert (tmp_path / "pki" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pki", "pki-2"], "the old key is gone"


def test_a_certificate_for_another_key_is_not_installed(files: IdentityFiles) -> None:
    files.install_first(sign(files.first_request()))
    before = files.read()
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(EnrollmentError):
        files.install(sign(files.new_request(), key=other))
    assert files.read() == before


def test_a_disk_that_fails_keeps_the_old_pair(files: IdentityFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.install_first(sign(files.first_request()))
    before = files.read()
    renewed = sign(files.new_request())

    def full(descriptor: int, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_fully", full)
    with pytest.raises(StateError):
        files.install(renewed)
    assert files.read() == before
