from pathlib import Path

import pytest

from controlplane.client import InvalidInputError, OperatorConfig, load_config
from controlplane.client.config import default_path

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def write(path: Path, **changes: str) -> Path:
    keys = {"controller": '"cloud:7443"', "token": '"lso1.a"', "ca_certificate": f'"""{PEM}"""'} | changes
    path.write_text("".join(f"{key} = {value}\n" for key, value in keys.items() if value))
    return path


def test_the_file_says_everything(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "operator.toml"), environment={})
    assert config == OperatorConfig(controller="cloud:7443", token="lso1.a", ca_certificate=PEM)


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "elsewhere.toml")
    assert load_config(environment={"LINESIDE_CONFIG": str(path)}).controller == "cloud:7443"


def test_the_users_folder_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    default_path().parent.mkdir(parents=True)
    write(default_path())
    assert load_config(environment={}).token == "lso1.a"


def test_overrides_win_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "operator.toml")
    environment = {"LINESIDE_CONTROLLER": "env:1", "LINESIDE_TOKEN": "lso1.env"}
    assert load_config(path, environment=environment).controller == "env:1"
    assert load_config(path, environment=environment).token == "lso1.env"
    assert load_config(path, controller="told:2", environment=environment).controller == "told:2"


def test_the_token_is_not_shown() -> None:
    assert "lso1" not in repr(OperatorConfig(controller="c:1", token="lso1.a", ca_certificate=PEM))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"controller": '"cloud"'}, "controller"),
        ({"controller": '"cloud:0"'}, "controller"),
        ({"controller": '":7443"'}, "controller"),
        ({"controller": "7443"}, "controller"),
        ({"token": '""'}, "token"),
        ({"token": '"two\\nlines"'}, "token"),
        ({"token": ""}, "token"),
        ({"ca_certificate": '"none"'}, "ca_certificate"),
        ({"tokn": '"a"'}, "tokn"),
        ({"token": "["}, "config"),
    ],
)
def test_a_wrong_file_is_refused_with_field_and_remedy(tmp_path: Path, changes: dict[str, str], field: str) -> None:
    path = write(tmp_path / "operator.toml", **changes)
    with pytest.raises(InvalidInputError) as caught:
        load_config(path, environment={})
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"#" * (1 << 20) + b"#"])
def test_no_configuration_at_all_names_the_option(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "operator.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="--config FILE") as caught:
        load_config(path, environment={})
    assert caught.value.field == "config"
