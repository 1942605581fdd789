"""Reads whom a client certificate names."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.domain.errors import CredentialError, FieldInvalidError, Reason
from controlplane.domain.identity import AgentCertificate
from controlplane.domain.ids import AgentId, check_resource_id
from controlplane.identity.authority import AGENT_URI_PREFIX, key_sha256, serial_text


def parse_peer(pem: bytes) -> AgentCertificate:
    """Return what the certificate of a peer says; TLS has verified that our CA signed it. Raises CredentialError
    (CERTIFICATE_INVALID) when it names no agent, as the server's own certificate does."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        if not uri.startswith(AGENT_URI_PREFIX):
            raise ValueError(uri)
        agent_id = AgentId(check_resource_id(uri.removeprefix(AGENT_URI_PREFIX), field="certificate"))
    except (ValueError, x509.ExtensionNotFound, FieldInvalidError) as error:
        raise _names_no_agent() from error
    public_key = certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise _names_no_agent()
    return AgentCertificate(
        serial=serial_text(certificate.serial_number),
        agent_id=agent_id,
        public_key_sha256=key_sha256(public_key),
        not_before=certificate.not_valid_before_utc,
        expire_time=certificate.not_valid_after_utc,
    )


def _names_no_agent() -> CredentialError:
    return CredentialError(
        "the client certificate names no agent",
        remedy="enrol with a join token of this controller",
        reason=Reason.CERTIFICATE_INVALID,
    )
