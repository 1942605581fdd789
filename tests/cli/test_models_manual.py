"""docs/models.md: its commands and its files are what the parsers take."""

import re
import shlex
from pathlib import Path

import pytest

from controlplane.cli.app import app
from controlplane.client import read_preprocessing

MANUAL = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", MANUAL, flags=re.DOTALL)


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_a_command_is_understood(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "lineside"
    command, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert command.__name__ in {"publish", "show"}
    assert bound.arguments


def test_the_file_is_understood(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "p.toml").write_text(text)
    wanted = read_preprocessing(tmp_path / "p.toml")
    assert set(wanted.inputs) == {"left", "right"}
    assert wanted.model_info == {"labels": "ok defect"}


def test_every_option_of_preprocessing_is_explained() -> None:
    for option in ("shape", "layout", "type", "size"):
        assert f"`--input-{option}`" in MANUAL
    for option in ("resize", "mean", "scale", "reverse-channels", "model-layout", "model-info", "preprocess"):
        assert f"`--{option}" in MANUAL
