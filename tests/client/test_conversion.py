"""PyTorch files and scripts become IR: without torch there is a clear refusal; here it is one that loads ONNX."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from controlplane.client import Client, InvalidInputError
from tests.client.fake_controller import FakeController
from tests.inspection.protobuf_bytes import onnx_model

pytestmark = pytest.mark.openvino


class Loaded(str):
    """What OpenVINO converts, here the path of an ONNX file."""

    __slots__ = ()

    def eval(self) -> "Loaded":
        return self


class ScriptedTorch(ModuleType):
    """Loads what was written as TorchScript by this test, and nothing else, as torch.jit.load does."""

    def __init__(self, loaded: Path) -> None:
        super().__init__("torch")
        self.jit = self.export = self
        self._loaded = Loaded(loaded)

    def load(self, path: str, map_location: str = "") -> Loaded:
        if Path(path).read_bytes() != b"torchscript":
            raise RuntimeError("PytorchStreamReader failed\nlong trace")
        return self._loaded


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(onnx_model())
    monkeypatch.setitem(sys.modules, "torch", ScriptedTorch(tmp_path / "net.onnx"))


@pytest.mark.parametrize("name", ["solar.pt", "solar.pth", "solar.pt2"])
def test_without_torch_the_remedy_is_named(
    client: Client, fake: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / name).write_bytes(b"torchscript")
    with pytest.raises(InvalidInputError, match="torch is not installed") as caught:
        client.models.publish("solar", tmp_path / name)
    assert caught.value.field == "path"
    assert "ONNX" in caught.value.remedy
    assert fake.calls == []


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("name", ["solar.pt", "solar.pth", "solar.pt2"])
def test_with_torch_the_ir_is_published(client: Client, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"torchscript")
    version = client.models.publish("solar", tmp_path / name)
    assert [file.path for file in version.artifact.files] == ["solar.bin", "solar.xml"]


@pytest.mark.usefixtures("libraries")
def test_weights_alone_are_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "solar.pt").write_bytes(b"a pickle")
    with pytest.raises(InvalidInputError, match="PytorchStreamReader failed;") as caught:
        client.models.publish("solar", tmp_path / "solar.pt")
    assert "torch.jit.save" in caught.value.remedy


@pytest.mark.usefixtures("libraries")
def test_the_same_file_is_the_same_version(client: Client, fake: FakeController, tmp_path: Path) -> None:
    (tmp_path / "solar.pt").write_bytes(b"torchscript")
    assert client.models.publish("solar", tmp_path / "solar.pt").number == 1
    assert client.models.publish("solar", tmp_path / "solar.pt").number == 1
    assert any(b'<net name="solar"' in bytes(blob) for blob in fake.blobs.values())


SCRIPT = """
import openvino as ov
from openvino import opset13 as ops

import neighbour

def build():
    image = ops.parameter([1, 4], ov.Type.f32, name="image")
    return ov.Model([ops.relu(image)], [image], neighbour.NAME)

def broken():
    raise KeyError("weights")

def wrong():
    return 42
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("NAME = 'n'")
    (tmp_path / "net.py").write_text(SCRIPT)
    return tmp_path / "net.py"


def test_a_function_that_makes_a_model_is_published(client: Client, script: Path) -> None:
    versions = [client.models.publish("solar", f"{script}:build") for _ in range(2)]
    assert [file.path for file in versions[0].artifact.files] == ["net.bin", "net.xml"]
    assert versions[0].number == versions[1].number == 1, "the same bytes"


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("net.py:nothing", "no function 'nothing'", "name a function"),
        ("net.py:broken", "weights", r"run broken\(\) of net.py"),
        ("net.py:wrong", "cannot be converted", "openvino.convert_model takes"),
        ("away.py:build", "is not there", "FILE.py:FUNCTION"),
        ("needy.py:build", "No module named 'no_such_package'", "install it"),
    ],
)
def test_a_script_that_makes_no_model_is_refused(
    client: Client, fake: FakeController, script: Path, *, name: str, message: str, remedy: str
) -> None:
    script.with_name("needy.py").write_text("import no_such_package")
    with pytest.raises(InvalidInputError, match=message) as caught:
        client.models.publish("solar", script.with_name(name))
    assert caught.value.field == "path"
    assert re.search(remedy, caught.value.remedy)
    assert fake.calls == []
