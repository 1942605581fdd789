from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.cli.main import main
from tests.client.conftest import fake, identity
from tests.client.fake_controller import FakeController

__all__ = ["fake", "identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run of the command line did."""

    status: int
    out: str
    err: str


Lineside = Callable[..., Outcome]


@pytest.fixture
def config(fake: FakeController, tmp_path: Path) -> Path:
    path = tmp_path / "operator.toml"
    known = fake.config
    path.write_text(
        f'controller = "{known.controller}"\ntoken = "{known.token}"\nca_certificate = """{known.ca_certificate}"""\n'
    )
    return path


@pytest.fixture
def lineside(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lineside:
    monkeypatch.setenv("LINESIDE_CONFIG", str(config))
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        status = main(words)
        captured = capsys.readouterr()
        return Outcome(status=status, out=captured.out, err=captured.err)

    return run
