"""The controller's settings, and its folder's memory of where it is."""

from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.composition import advertise
from controlplane.config import Address, Settings, default_artifact_url, default_database_url, parse_duration
from controlplane.domain.errors import FieldInvalidError, PreconditionError, StorageError
from controlplane.folder import OperatorFile, clear_workspace, hold, reachable
from controlplane.main import Listeners

HERE = Address(host="127.0.0.1", port=7443)
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"


def make_settings(folder: Path) -> Settings:
    return Settings(
        dir=folder,
        database_url=default_database_url(folder),
        artifact_url=default_artifact_url(folder),
        api=HERE,
        fleet=HERE.with_port(0),
        agent_bytes=Address(host="::1", port=1),
        operator_bytes=HERE,
        sync_interval_seconds=0.5,
        agent_certificate_ttl=timedelta(days=3, seconds=5),
    )


def test_settings_survive_the_way_to_the_bytes_process(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    assert Settings.from_json(settings.to_json()) == settings


def test_unknown_settings_are_an_error(tmp_path: Path) -> None:
    text = make_settings(tmp_path).to_json()
    with pytest.raises(TypeError):
        Settings.from_json(text.replace('"log_level"', '"loglevel"'))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:7443", "127.0.0.1", 7443), ("[::1]:0", "::1", 0), ("ctl.example.com:443", "ctl.example.com", 443)],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text, field="listen")
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize("text", ["", "7443", ":7443", "host", "host:", "host:x", "host:65536", "host:-1", "host:٣"])
def test_what_is_no_address_is_refused_by_field(text: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        Address.parse(text, field="listen")
    assert refusal.value.field == "listen"
    assert refusal.value.remedy


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("30d", 2592000), ("200ms", 0.2), ("15m", 900)]
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text, field="ttl").total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1y", "1 h", "1e3s", "9999999999s"])
def test_what_is_no_duration_is_refused_by_field(text: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        parse_duration(text, field="ttl")
    assert refusal.value.field == "ttl"


def test_the_other_listeners_take_the_ports_after_the_first_and_may_fall_back() -> None:
    listeners = Listeners.parse("0.0.0.0:7443", None, "10.0.0.1:9000", None)
    assert [str(a) for a in (listeners.fleet, listeners.agent_bytes, listeners.operator_bytes)] == [
        "0.0.0.0:7444",
        "10.0.0.1:9000",
        "0.0.0.0:7446",
    ]
    assert listeners.fall_back == {"fleet", "operator_bytes"}


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.0.0.1:65535"])
def test_where_no_ports_follow_any_free_ones_are_taken(listen: str) -> None:
    assert Listeners.parse(listen, None, None, None).fleet.port == 0


@pytest.mark.parametrize(
    ("stored", "listening", "dialled"),
    [
        ("127.0.0.1:7443", "127.0.0.1:9000", "127.0.0.1:9000"),
        ("127.0.0.1:7443", "0.0.0.0:9000", "127.0.0.1:9000"),
        ("127.0.0.1:7443", "192.0.2.7:9000", "192.0.2.7:9000"),
        ("ctl.example.com:7443", "192.0.2.7:7443", "ctl.example.com:7443"),
        ("ctl.example.com:7443", "0.0.0.0:9000", "ctl.example.com:9000"),
    ],
)
def test_operators_dial_the_port_that_is_served_by_the_name_that_was_given(
    stored: str, listening: str, dialled: str
) -> None:
    found = reachable(Address.parse(stored, field="f"), Address.parse(listening, field="f"))
    assert str(found) == dialled


@pytest.mark.parametrize(
    ("address", "told"),
    [("127.0.0.1:7444", ":7444"), ("0.0.0.0:7444", ":7444"), ("192.0.2.7:7444", "192.0.2.7:7444")],
)
def test_endpoints_name_a_host_only_where_it_is_another_one(address: str, told: str) -> None:
    assert advertise(Address.parse(address, field="f"), api=HERE) == told


def test_operator_toml_is_read_back_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "operator.toml"
    assert OperatorFile.read(path) is None
    written = OperatorFile(controller=HERE, token="lso1.s", ca_certificate=CERTIFICATE)
    written.write(path)
    found = OperatorFile.read(path)
    assert found is not None
    assert (found.controller, found.token, found.ca_certificate.strip()) == (HERE, "lso1.s", CERTIFICATE)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "nonsense", 'controller = "x"', 'controller = "h:1"\ntoken = "t"'])
def test_a_broken_operator_toml_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "operator.toml"
    path.write_text(text)
    with pytest.raises(StorageError) as refusal:
        OperatorFile.read(path)
    assert str(path) in refusal.value.message
    assert refusal.value.remedy


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(PreconditionError), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_the_workspace_is_empty_at_each_start(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    for _ in range(2):
        clear_workspace(folder)
        assert list(folder.iterdir()) == []
        (folder / "publish-x").mkdir()
        (folder / "publish-x" / "model.xml").write_text("left by a kill")
    assert folder.stat().st_mode & 0o777 == 0o700
