"""`init --join`: the folder of a replica."""

import stat
from pathlib import Path

import pytest

from controlplane.config import Address
from controlplane.domain.errors import DomainError, FieldInvalidError, PreconditionError, Reason
from controlplane.folder import OperatorFile, take_over
from controlplane.initialisation import initialise

FIRST = Address(host="ctl-1.example.com", port=7443)
SECOND = Address(host="ctl-2.example.com", port=7443)


def read(path: Path) -> OperatorFile:
    found = OperatorFile.read(path)
    assert found is not None
    return found


@pytest.fixture
def first(tmp_path: Path, postgres_url: str) -> Path:
    """A controller's folder on PostgreSQL."""
    initialise(tmp_path / "first", controller=FIRST, database_url=postgres_url)
    return tmp_path / "first"


@pytest.mark.postgres
def test_a_replica_has_the_ca_and_the_first_operator_and_a_server_key_of_its_own(
    first: Path, tmp_path: Path, postgres_url: str
) -> None:
    second = tmp_path / "second"
    made = initialise(second, controller=SECOND, database_url=postgres_url, join=first)
    assert f"took over the CA of {first}" in made
    for name in ("ca.pem", "ca.key"):
        assert (second / "pki" / name).read_bytes() == (first / "pki" / name).read_bytes()
    assert stat.S_IMODE((second / "pki" / "ca.key").stat().st_mode) == 0o600
    assert (second / "pki" / "server.key").read_bytes() != (first / "pki" / "server.key").read_bytes()
    one, other = read(first / "operator.toml"), read(second / "operator.toml")
    assert (other.token, other.ca_certificate) == (one.token, one.ca_certificate)
    assert (one.controller, other.controller) == (FIRST, SECOND)
    assert initialise(second, controller=SECOND, database_url=postgres_url, join=first) == ()


@pytest.mark.postgres
def test_a_copy_of_the_keys_is_enough_to_join(first: Path, tmp_path: Path, postgres_url: str) -> None:
    copy = tmp_path / "copy"
    (copy / "pki").mkdir(parents=True)
    for name in ("ca.pem", "ca.key"):
        (copy / "pki" / name).write_bytes((first / "pki" / name).read_bytes())
    initialise(tmp_path / "second", controller=SECOND, database_url=postgres_url, join=copy)
    assert read(tmp_path / "second" / "operator.toml").token != read(first / "operator.toml").token


def refusal(folder: Path, *, join: Path, database_url: str) -> DomainError:
    with pytest.raises(DomainError) as refused:
        initialise(folder, controller=SECOND, database_url=database_url, join=join)
    return refused.value


def test_a_folder_that_is_no_controllers_is_not_joined(tmp_path: Path) -> None:
    error = refusal(tmp_path / "second", join=tmp_path / "nowhere", database_url="postgresql:///x")
    assert (error.reason, error.field) == (Reason.RESOURCE_NOT_FOUND, "join")
    assert not (tmp_path / "second").exists()


@pytest.mark.postgres
def test_sqlite_is_not_shared(first: Path, tmp_path: Path) -> None:
    error = refusal(tmp_path / "second", join=first, database_url=f"sqlite:///{tmp_path / 'lineside.db'}")
    assert isinstance(error, FieldInvalidError)
    assert error.field == "database_url"
    assert "postgresql://" in error.remedy
    assert not (tmp_path / "second").exists()


@pytest.mark.postgres
def test_a_controller_with_a_ca_of_its_own_does_not_join(first: Path, tmp_path: Path, postgres_url: str) -> None:
    other = tmp_path / "other"
    initialise(other, controller=SECOND, database_url=f"sqlite:///{tmp_path / 'lineside.db'}")
    before = (other / "pki" / "ca.pem").read_bytes()
    error = refusal(other, join=first, database_url=postgres_url)
    assert isinstance(error, PreconditionError)
    assert error.field == "dir"
    assert (other / "pki" / "ca.pem").read_bytes() == before


@pytest.mark.postgres
def test_a_ca_without_its_key_is_not_joined(first: Path, tmp_path: Path, postgres_url: str) -> None:
    (first / "pki" / "ca.key").unlink()
    error = refusal(tmp_path / "second", join=first, database_url=postgres_url)
    assert error.field == "join"
    assert not (tmp_path / "second" / "pki" / "ca.pem").exists()


def test_who_served_a_folder_before_is_known_to_the_next(tmp_path: Path) -> None:
    assert take_over(tmp_path, name="a-1") is None
    assert take_over(tmp_path, name="a-2") == "a-1"
    assert take_over(tmp_path, name="a-3") == "a-2"
