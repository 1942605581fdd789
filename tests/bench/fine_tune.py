"""What a full fine-tune of the solar cells' model is worth beside its head alone, on cells that no training saw.

The base version knows mono-crystalline cells alone, as when the line of the demo turns to poly-crystalline ones. Both
trainers get the same labelled poly cells, drawn by chance, and the mono cells that the base was fitted on; all cells
that no training saw tell the AUC. torch comes into an environment of its own, unless `--python` names one that has it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino as ov
import PIL
import sklearn
from PIL import Image
from sklearn.metrics import roc_auc_score

from examples.solar import data, model
from examples.solar.data import Cells, Product
from tests.bench.report import ROOT, Row, against, alone, publish
from tests.support.tool_venvs import python_of

LABELS, EPOCHS = 400, 32
MONO_CELLS = 540
"""As many as the demo's second version is fitted on."""
MONO_WEIGHT = 0.5
VALIDATION_SHARE = 0.1
"""As in a dataset that says nothing."""
TORCH = (
    "torch==2.13.0",
    f"openvino=={ov.__version__.split('-', maxsplit=1)[0]}",
    f"scikit-learn=={sklearn.__version__}",
    f"pillow=={PIL.__version__}",
)
TRAINERS = ("head", "finetune")


def write_dataset(folder: Path, parts: dict[Product, Cells], weights: dict[Product, float]) -> None:
    """As a trainer is given it (docs/training.md)."""
    draw, items = np.random.default_rng(0), []
    folder.mkdir()
    for product, cells in parts.items():
        for part_id, image, defective in zip(cells.part_ids, cells.images, cells.defective, strict=True):
            file = f"{product}-{part_id}.png"
            Image.fromarray(image[:, :, 0]).save(folder / file)
            items.append(
                {
                    "file": file,
                    "label": "defect" if defective else "ok",
                    "split": "VALIDATION" if draw.random() < VALIDATION_SHARE else "TRAIN",
                    "weight": weights[product],
                    "line": str(product),
                    "agent": "st-1" if product is Product.POLY else "",
                }
            )
    (folder / "dataset.json").write_text(json.dumps({"items": items}))


def train(python: Path, trainer: str, folder: Path, *, parameters: Mapping[str, float]) -> tuple[Path, float]:
    """The candidate, and how many seconds it took."""
    output = folder / trainer
    output.mkdir()
    (folder / f"{trainer}.json").write_text(json.dumps(parameters))
    command = [str(python), "-m", f"controlplane.trainers.{trainer}", "--dataset", str(folder / "dataset")]
    command += ["--base", str(folder / "base"), "--output", str(output)]
    begin = time.perf_counter()
    subprocess.run([*command, "--parameters", str(folder / f"{trainer}.json")], cwd=ROOT, check=True)
    return output / "model" / "model.xml", time.perf_counter() - begin


def auc(path: Path, cells: Cells) -> float:
    request = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    scores = [float(request.infer([image[None]])[0].reshape(-1)[-1]) for image in cells.images]
    return float(roc_auc_score(cells.defective, scores))


def run_rows(folder: Path, python: Path, *, labels: int, epochs: int) -> list[Row]:
    parts, held_out = {}, {}
    for product, given in ((Product.POLY, labels), (Product.MONO, MONO_CELLS)):
        cells = data.load_cells(product)
        order = np.random.default_rng(data.SPLIT_SEED).permutation(len(cells))
        parts[product], held_out[product] = cells.take(order[:given]), cells.take(order[given:])
    write_dataset(folder / "dataset", parts, {Product.POLY: 1.0, Product.MONO: MONO_WEIGHT})
    base = model.build_version(data.fetch_backbone(ROOT / ".cache"), parts[Product.MONO], folder / "base")
    before = {product: auc(base, cells) for product, cells in held_out.items()}
    rows = []
    for trainer in TRAINERS:
        tuned = trainer == "finetune"
        candidate, seconds = train(
            python if tuned else Path(sys.executable), trainer, folder, parameters={"epochs": epochs} if tuned else {}
        )
        rows += [
            against(f"{trainer}/AUC on {each}", auc(candidate, held_out[each]), "", before[each]) for each in Product
        ]
        rows.append(alone(f"{trainer}/time", seconds, "s"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=LABELS, help="poly cells with a label")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--python", type=Path, help="an interpreter that has torch, OpenVINO and scikit-learn")
    options = parser.parse_args()
    python = options.python or python_of("torch", TORCH)
    with TemporaryDirectory(prefix="lineside-bench-") as folder:
        rows = run_rows(Path(folder), python, labels=options.labels, epochs=options.epochs)
    publish("fine-tune", rows, baseline=f"the version before, which was fitted on {MONO_CELLS} mono cells")


if __name__ == "__main__":
    main()
