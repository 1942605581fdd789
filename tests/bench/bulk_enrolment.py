"""Thousands of enrolled agents at once: certificates signed by the controller's CA, rows written through its store.

A certificate for each agent, all of one key: what a handshake costs does not depend on whose key it is. Enrolment
itself, a call and a transaction an agent, is no part of what is measured.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.app.ports import Store
from controlplane.domain.identity import AgentCertificate
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Agent
from controlplane.identity.authority import LocalAuthority
from controlplane.system import SystemIds

LINES_A_SITE, STATIONS_A_LINE = 10, 10


def sign(pki: Path, folder: Path, *, agents: int) -> list[AgentCertificate]:
    """Leave `folder`/ca.pem, agent.key and INDEX.pem of each; return the certificates as the store keeps them."""
    folder.mkdir()
    authority = LocalAuthority(pki, agent_certificate_ttl=timedelta(days=1))
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    csr_der = request.public_bytes(serialization.Encoding.DER)
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "agent.key").write_bytes(pem)
    (folder / "ca.pem").write_text(authority.ca_certificate_pem)
    now, certificates = datetime.now(UTC), []
    for index in range(agents):
        signed = authority.sign(csr_der, agent_id=agent_id(index), now=now)
        (folder / f"{index}.pem").write_text(signed.certificate_pem)
        certificates.append(signed.certificate)
    return certificates


async def enrol(store: Store, certificates: list[AgentCertificate]) -> None:
    """Write every agent and its certificate, in one transaction."""
    now, ids = datetime.now(UTC), SystemIds()
    async with store.write() as work:
        for index, certificate in enumerate(certificates):
            agent = Agent(id=certificate.agent_id, uid=ids.uid(), create_time=now, labels=labels(index))
            await work.agents.add(agent)
            await work.certificates.add(certificate)


def agent_id(index: int) -> AgentId:
    return AgentId(f"sim-{index:05d}")


def labels(index: int) -> dict[str, str]:
    """Ten stations a line, ten lines a site."""
    line = index // STATIONS_A_LINE
    return {"site": f"site-{line // LINES_A_SITE}", "line": str(line % LINES_A_SITE), "station": str(index)}
