"""The agent's key and certificate on disk.

Rules kept here:
- The key is made on this box, is readable by its owner alone, and never leaves.
- The first key is on disk before it is sent for signing, so that a repeated enrolment uses the same one.
- Key and certificate change together: `pki` is a link to a folder, and renewal moves the link in one step.
"""

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.app.ports import Identity, RenewedCertificate
from agent.domain.errors import EnrollmentError, Reason, StateError
from agent.storage import durable

_KEY = "key.pem"
_CERTIFICATE = "certificate.pem"
_CA = "ca.pem"


class IdentityFiles:
    """`app.ports.Certificates` in a folder, and what enrolment needs of it."""

    def __init__(self, pki: Path, *, agent: str) -> None:
        self._pki = pki
        self._agent = agent
        self._next_key: ec.EllipticCurvePrivateKey | None = None

    # --- enrolment ---

    def first_request(self) -> bytes:
        """A PKCS #10 request (DER) signed with the key of this folder, which is made and kept where there is none."""
        path = self._pki / _KEY
        try:
            if not path.exists():
                self._replace({_KEY: _key_pem(ec.generate_private_key(ec.SECP256R1()))})
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise _unwritable(self._pki, error) from error
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return _request(key, self._agent)

    def install_first(self, enrolled: RenewedCertificate) -> None:
        """Put the certificate beside the key that `first_request` used."""
        try:
            durable.write_durably(self._pki / _CA, enrolled.ca_certificate_pem.encode(), mode=0o644)
            durable.write_durably(self._pki / _CERTIFICATE, enrolled.certificate_pem.encode(), mode=0o644)
        except OSError as error:
            raise _unwritable(self._pki, error) from error

    # --- use ---

    def read(self) -> Identity:
        """Raises EnrollmentError (NOT_ENROLLED) when any of the three is missing."""
        try:
            return Identity(
                key_pem=(self._pki / _KEY).read_bytes(),
                certificate_pem=(self._pki / _CERTIFICATE).read_bytes(),
                ca_pem=(self._pki / _CA).read_bytes(),
            )
        except OSError as error:
            raise EnrollmentError(
                f"cannot read {error.filename}: {error.strerror}",
                field="--dir",
                remedy="run `lineside-agent enroll` on the folder with a new join token",
                reason=Reason.NOT_ENROLLED,
            ) from error

    def ca_pem(self) -> bytes | None:
        """The CA that this folder belongs to, None before the first enrolment."""
        path = self._pki / _CA
        return path.read_bytes() if path.exists() else None

    def expire_time(self) -> datetime:
        return self._certificate().not_valid_after_utc

    def lifetime(self) -> timedelta:
        certificate = self._certificate()
        return certificate.not_valid_after_utc - certificate.not_valid_before_utc

    # --- renewal ---

    def new_request(self) -> bytes:
        self._next_key = ec.generate_private_key(ec.SECP256R1())
        return _request(self._next_key, self._agent)

    def install(self, renewed: RenewedCertificate) -> None:
        assert self._next_key is not None, "new_request comes first"
        _check_pair(self._next_key, renewed.certificate_pem)
        files = {
            _KEY: _key_pem(self._next_key),
            _CERTIFICATE: renewed.certificate_pem.encode(),
            _CA: renewed.ca_certificate_pem.encode(),
        }
        try:
            self._replace(files)
        except OSError as error:
            raise _unwritable(self._pki, error) from error
        self._next_key = None

    # --- within ---

    def _certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.read().certificate_pem)

    def _replace(self, files: dict[str, bytes]) -> None:
        """Show a folder with these files as `pki`, in one step; what was there before goes after that."""
        root = self._pki.parent
        before = self._pki.readlink().name if self._pki.is_symlink() else None
        number = 1 if before is None else int(before.removeprefix("pki-")) + 1
        folder = root / f"pki-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        for name, content in files.items():
            durable.write_durably(folder / name, content, mode=0o600 if name == _KEY else 0o644)
        link = root / ".pki.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        os.replace(link, self._pki)
        durable.sync_folder(root)
        if before is not None:
            shutil.rmtree(root / before, ignore_errors=True)


def _request(key: ec.EllipticCurvePrivateKey, agent: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agent)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _check_pair(key: ec.EllipticCurvePrivateKey, certificate_pem: str) -> None:
    """Raise EnrollmentError when the certificate is for another key: installing it would lock the agent out."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    if certificate.public_key() != key.public_key():
        raise EnrollmentError("the controller sent a certificate for another key", remedy="it is asked for again")


def _unwritable(pki: Path, error: OSError | ValueError) -> StateError:
    return StateError(
        f"cannot keep the identity in {pki}: {error}",
        field="--dir",
        remedy="make the agent's folder writable for this user and free some disk",
        reason=Reason.STATE_UNWRITABLE,
    )
