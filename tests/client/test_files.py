import hashlib
from pathlib import Path

import pytest

from controlplane.client import InvalidInputError, limits
from controlplane.client.files import ModelFile, artifact_of, collect, describe


def put(folder: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def onnx_naming(name: str) -> bytes:
    """Return bytes that hold what protobuf writes for an ONNX tensor's external_data location."""
    return b"weights" + b"\x0a\x08location\x12" + bytes([len(name)]) + name.encode() + b"more"


@pytest.mark.parametrize(
    ("given", "there", "expected"),
    [
        ("m.xml", ["m.xml", "m.bin", "other.bin"], ["m.bin", "m.xml"]),
        ("m.pdmodel", ["m.pdmodel", "m.pdiparams", "readme"], ["m.pdiparams", "m.pdmodel"]),
        ("m.onnx", ["m.onnx", "other.onnx"], ["m.onnx"]),
        ("frozen.pb", ["frozen.pb"], ["frozen.pb"]),
        ("m.tflite", ["m.tflite"], ["m.tflite"]),
        (
            ".",
            ["saved_model.pb", "variables/variables.index", ".DS_Store", ".git/config"],
            ["saved_model.pb", "variables/variables.index"],
        ),
    ],
)
def test_a_model_is_its_files(tmp_path: Path, given: str, there: list[str], expected: list[str]) -> None:
    put(tmp_path, *there)
    assert [file.path for file in collect(tmp_path / given)] == expected


def test_onnx_brings_the_external_data_that_it_names(tmp_path: Path) -> None:
    put(tmp_path, "m.onnx.data", "weights/w1", "unrelated")
    content = (
        onnx_naming("m.onnx.data") + onnx_naming("weights/w1") + onnx_naming("../outside") + b"\x0a\x08location\x12"
    )
    (tmp_path / "m.onnx").write_bytes(content)
    assert [file.path for file in collect(tmp_path / "m.onnx")] == ["m.onnx", "m.onnx.data", "weights/w1"]


@pytest.mark.parametrize(
    ("given", "there", "remedy"),
    [
        ("m.xml", [], "give an .xml"),
        ("m.xml", ["m.xml"], "together"),
        ("m.pdmodel", ["m.pdmodel"], "together"),
        ("m.bin", ["m.bin", "m.xml"], ".xml file beside it"),
        ("saved_model.pb", ["saved_model.pb"], "folder"),
        ("m.h5", ["m.h5"], "give an .xml"),
        (".", ["notes.txt"], "give an .xml"),
    ],
)
def test_what_is_no_model_is_refused_with_the_remedy(tmp_path: Path, given: str, there: list[str], remedy: str) -> None:
    put(tmp_path, *there)
    with pytest.raises(InvalidInputError) as caught:
        collect(tmp_path / given)
    assert caught.value.field == "path"
    assert remedy in caught.value.remedy


def test_missing_external_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_naming("m.onnx.data"))
    with pytest.raises(InvalidInputError, match=r"m\.onnx\.data"):
        collect(tmp_path / "m.onnx")


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ARTIFACT_FILES_MAX", 2)
    put(tmp_path, "m.onnx", "a", "b")
    with pytest.raises(InvalidInputError, match="3 files"):
        collect(tmp_path)


@pytest.mark.parametrize("size_bytes", [0, 1, limits.CHUNK_BYTES, limits.CHUNK_BYTES + 1, 3 * limits.CHUNK_BYTES])
def test_digests_are_of_the_whole_and_of_each_chunk(tmp_path: Path, size_bytes: int) -> None:
    content = bytes(range(256)) * (size_bytes // 256 + 1)
    content = content[:size_bytes]
    (tmp_path / "m.tflite").write_bytes(content)
    told: list[int] = []
    (file,) = collect(tmp_path / "m.tflite")
    described = describe(file, advance=told.append)
    assert described.digest == "sha256:" + hashlib.sha256(content).hexdigest()
    chunks = [content[start : start + limits.CHUNK_BYTES] for start in range(0, size_bytes, limits.CHUNK_BYTES)]
    assert list(described.chunk_digests) == [hashlib.sha256(chunk).digest() for chunk in chunks]
    assert (described.size_bytes, described.chunk_size_bytes) == (size_bytes, limits.CHUNK_BYTES)
    assert sum(told) == size_bytes


def test_the_artifact_digest_is_over_the_sorted_lines(tmp_path: Path) -> None:
    put(tmp_path, "m.xml", content=b"<net/>")
    put(tmp_path, "m.bin", content=b"weights")
    artifact = artifact_of(tuple(describe(file) for file in collect(tmp_path / "m.xml")))
    lines = f"{hashlib.sha256(b'weights').hexdigest()} 7 m.bin\n{hashlib.sha256(b'<net/>').hexdigest()} 6 m.xml\n"
    assert artifact.digest == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert artifact.size_bytes == 13


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"gone\.onnx"):
        describe(ModelFile(source=tmp_path / "gone.onnx", path="gone.onnx", size_bytes=1))
