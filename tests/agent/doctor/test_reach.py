"""Faults on the way to the controller, against real sockets and real TLS."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.doctor import ports, reach
from agent.doctor.finding import Grade
from agent.doctor.reach import Route
from agent.rpc.channel import SERVER_NAME
from tests.support import pki

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@contextmanager
def tls_listener(folder: Path, authority: pki.Authority, *, begin: datetime, end: datetime) -> Iterator[str]:
    """The address of a port that shakes hands and then closes."""
    key, certificate = authority.issue(SERVER_NAME, begin=begin, end=end)
    (folder / "server.key").write_bytes(key)
    (folder / "server.pem").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            raw, _ = listener.accept()
            with raw:
                try:
                    context.wrap_socket(raw, server_side=True).close()
                except OSError:
                    return  # the caller did not like the certificate

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(20)


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.new_authority(NOW)


def test_a_listener_of_our_ca_is_well(tmp_path: Path, authority: pki.Authority) -> None:
    with tls_listener(tmp_path, authority, begin=NOW - DAY, end=NOW + DAY) as address:
        finding = reach.check_route(Route(name="api", address=address, ca_pem=authority.pem), now=NOW)
    assert finding.grade is Grade.OK


def test_a_listener_of_another_ca_is_named(tmp_path: Path, authority: pki.Authority) -> None:
    with tls_listener(tmp_path, pki.new_authority(NOW), begin=NOW - DAY, end=NOW + DAY) as address:
        finding = reach.check_route(Route(name="api", address=address, ca_pem=authority.pem), now=NOW)
    assert finding.grade is Grade.FAIL
    assert "no certificate of our CA" in finding.message
    assert "enrol into a new folder" in finding.remedy


@pytest.mark.parametrize(("begin", "end", "words"), [(-9, -8, "has expired"), (8, 9, "is not yet valid")])
def test_a_certificate_outside_its_time_names_the_clock(
    tmp_path: Path, authority: pki.Authority, begin: int, end: int, words: str
) -> None:
    with tls_listener(tmp_path, authority, begin=NOW + begin * DAY, end=NOW + end * DAY) as address:
        finding = reach.check_route(Route(name="api", address=address, ca_pem=authority.pem), now=NOW)
    assert finding.grade is Grade.FAIL
    assert words in finding.message
    assert "set-ntp" in finding.remedy


def test_a_port_that_speaks_no_tls_is_named(authority: pki.Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            raw, _ = listener.accept()
            with raw:
                raw.recv(64)
                raw.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        finding = reach.check_route(Route(name="api", address=address, ca_pem=authority.pem), now=NOW)
        thread.join(20)
    assert finding.grade is Grade.FAIL
    assert "does not shake hands" in finding.message


def test_a_closed_port_is_named(authority: pki.Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    finding = reach.check_route(Route(name="fleet", address=address, ca_pem=authority.pem), now=NOW)
    assert finding.grade is Grade.FAIL
    assert "see that the controller runs" in finding.remedy
    assert ports.check_served("grpc", address).grade is Grade.FAIL
    assert ports.check_free("grpc", address).grade is Grade.OK


def test_a_name_that_nobody_knows_is_named(authority: pki.Authority) -> None:
    route = Route(name="api", address="controller.invalid:7443", ca_pem=authority.pem)
    finding = reach.check_route(route, now=NOW)
    assert finding.grade is Grade.FAIL
    assert "/etc/resolv.conf" in finding.remedy


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        finding = ports.check_free("grpc", address)
        assert ports.check_served("grpc", address).grade is Grade.OK
    assert finding.grade is Grade.WARN
    assert "--grpc" in finding.remedy


@pytest.mark.parametrize(
    ("offset_seconds", "grade"), [(0.2, Grade.OK), (-30.0, Grade.WARN), (90.0, Grade.FAIL), (-4000.0, Grade.FAIL)]
)
def test_how_far_a_clock_may_be_off(offset_seconds: float, grade: Grade) -> None:
    finding = reach.judge_clock(offset_seconds)
    assert finding.grade is grade
    assert ("set-ntp" in finding.remedy) is (grade is not Grade.OK)
