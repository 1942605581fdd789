"""PyTorch files: without torch there is a clear refusal; with it, what is asked of the two libraries."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from controlplane.client import Client, InvalidInputError
from tests.client.fake_controller import FakeController


class ScriptedTorch(ModuleType):
    """Loads what was written as TorchScript by this test, and nothing else, as torch.jit.load does."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.jit = self.export = self

    def load(self, path: str, map_location: str = "") -> "ScriptedTorch":
        if Path(path).read_bytes() != b"torchscript":
            raise RuntimeError("PytorchStreamReader failed\nlong trace")
        return self

    def eval(self) -> "ScriptedTorch":
        return self


class ScriptedNode:
    """A node that a counter of the process names, and that a frontend may have named."""

    made = 0

    def __init__(self, friendly_name: str = "") -> None:
        ScriptedNode.made += 1
        self.name = f"Result_{ScriptedNode.made}"
        self.friendly_name = friendly_name or self.name

    def get_name(self) -> str:
        return self.name

    def get_friendly_name(self) -> str:
        return self.friendly_name

    def set_friendly_name(self, name: str) -> None:
        self.friendly_name = name

    def get_type_name(self) -> str:
        return "Result"


class ScriptedModel:
    """A model of two nodes."""

    def __init__(self) -> None:
        self.nodes = [ScriptedNode("conv"), ScriptedNode()]
        self.name = f"Model{ScriptedNode.made}"

    def set_friendly_name(self, name: str) -> None:
        self.name = name

    def get_ordered_ops(self) -> list[ScriptedNode]:
        return self.nodes


class ScriptedOpenVINO(ModuleType):
    """Writes IR files as openvino.save_model does."""

    def __init__(self) -> None:
        super().__init__("openvino")

    def convert_model(self, model: Any) -> "ScriptedModel":
        return ScriptedModel()

    def save_model(self, model: "ScriptedModel", target: Path, *, compress_to_fp16: bool) -> None:
        assert not compress_to_fp16
        names = [model.name, *(node.friendly_name for node in model.nodes)]
        target.write_text(f"<net>{' '.join(names)}</net>")
        target.with_suffix(".bin").write_bytes(b"weights")


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", ScriptedTorch())
    monkeypatch.setitem(sys.modules, "openvino", ScriptedOpenVINO())


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
    assert b"<net>solar conv Result_1</net>" in {bytes(blob) for blob in fake.blobs.values()}
