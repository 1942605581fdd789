"""The reference trainers as programs, by the documented contract: on a small task that is a real one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from controlplane.inspection.entry import Entry
from controlplane.inspection.signature import read_signature
from controlplane.trainers import finetune, head, quantize
from controlplane.trainers.contract import Item, Task, TrainerError, read_task
from controlplane.trainers.inputs import read_input
from controlplane.trainers.network import read_network
from controlplane.trainers.weighting import weights_of
from tests.training.scratches import LABELS, answers, scratch_model, write_pictures

pytestmark = pytest.mark.openvino


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset as `Datasets.materialise` writes it: one in five validates."""
    folder = tmp_path_factory.mktemp("dataset")
    labels = write_pictures(folder / "images", 200, seed=3)
    rows = [line.split(",") for line in labels.read_text().splitlines()[1:]]
    items = [
        {
            "file": f"images/{name}",
            "label": label,
            "split": "VALIDATION" if place % 5 == 0 else "TRAIN",
            "weight": 1.0,
            "agent": "" if place < 100 else "st-1",
            "line": "3",
            "capture_time": f"2026-03-01T12:{place // 60:02}:{place % 60:02}+00:00",
        }
        for place, (name, label, _) in enumerate(rows)
    ]
    (folder / "dataset.json").write_text(json.dumps({"items": items}))
    return folder


class Trained:
    """One run of a trainer."""

    def __init__(
        self,
        folder: Path,
        dataset: Path,
        *,
        train: Callable[[Task], None] = head.train,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        self.output = folder / "output"
        self.output.mkdir()
        (folder / "parameters.json").write_text(json.dumps(parameters or {}))
        self.arguments = [
            *("--dataset", str(dataset), "--base", str(folder / "base"), "--output", str(self.output)),
            *("--parameters", str(folder / "parameters.json")),
        ]
        self.refusal = ""
        try:
            train(read_task(self.arguments))
        except TrainerError as error:
            self.refusal = str(error)

    @property
    def metrics(self) -> dict[str, float]:
        found: dict[str, float] = json.loads((self.output / "metrics.json").read_text())
        return found

    @property
    def model(self) -> Path:
        return self.output / "model" / "model.xml"


def share_right(model: Path, tmp_path: Path, classify: Callable[[np.ndarray], int]) -> float:
    """Share of new pictures that the model judges right."""
    labels = write_pictures(tmp_path / "fresh", 120, seed=99)
    truth = dict(line.split(",")[:2] for line in labels.read_text().splitlines()[1:])
    found = answers(model, labels.parent)
    return float(np.mean([LABELS[classify(found[name])] == truth[name] for name in truth]))


@pytest.mark.parametrize(
    ("outputs", "activation", "classify"),
    [
        (1, "sigmoid", lambda scores: int(scores[0] > 0.5)),
        (2, "softmax", lambda scores: int(scores.argmax())),
        (2, "sigmoid", lambda scores: int(scores.argmax())),
        (2, "none", lambda scores: int(scores.argmax())),
    ],
)
def test_a_refitted_head_knows_what_the_base_did_not_and_is_the_base_otherwise(
    tmp_path: Path, dataset: Path, outputs: int, activation: str, classify: Callable[[np.ndarray], int]
) -> None:
    base = scratch_model(tmp_path / "base", outputs=outputs, activation=activation)
    (tmp_path / "base" / "notes.txt").write_text("beside the model")
    trained = Trained(tmp_path, dataset)
    assert not trained.refusal
    assert share_right(base, tmp_path, classify) < 0.7
    assert share_right(trained.model, tmp_path, classify) > 0.9
    entry = Entry(format="ir", path="model.xml")
    assert read_signature(trained.model.parent, entry) == read_signature(tmp_path / "base", entry)
    assert (trained.model.parent / "notes.txt").read_text() == "beside the model"
    assert trained.metrics["validation_auc/defect"] > 0.9
    assert trained.metrics["validation_auc/defect/line=3"] == trained.metrics["validation_auc/defect"]
    last = json.loads((trained.output / "progress.jsonl").read_text().splitlines()[-1])
    assert last["fraction"] == 1.0


def test_a_head_of_three_classes_and_half_precision_is_refitted(tmp_path: Path, dataset: Path) -> None:
    path = scratch_model(tmp_path / "base", outputs=3, activation="softmax", labels="ok defect smear")
    ov.save_model(ov.Core().read_model(path), tmp_path / "half.xml", compress_to_fp16=True)
    (tmp_path / "half.xml").rename(path)
    (tmp_path / "half.bin").rename(path.with_suffix(".bin"))
    document = json.loads((dataset / "dataset.json").read_text())
    for place, item in enumerate(document["items"]):
        item["file"] = str(dataset / item["file"])
        item["label"] = "smear" if place % 7 == 3 else item["label"]
    other = tmp_path / "dataset"
    other.mkdir()
    (other / "dataset.json").write_text(json.dumps(document))
    trained = Trained(tmp_path, other)
    assert not trained.refusal
    assert {"validation_auc/ok", "validation_auc/defect", "validation_auc/smear"} <= set(trained.metrics)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, dataset: Path) -> None:
    contents = []
    scratch_model(tmp_path / "base")
    for name in ("first", "second"):
        shutil.copytree(tmp_path / "base", tmp_path / name / "base")
        trained = Trained(tmp_path / name, dataset)
        contents.append((trained.model.read_bytes(), trained.model.with_suffix(".bin").read_bytes()))
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("labels", "parameters", "said"),
    [
        ("good bad", {}, "'defect' is none of the base version's"),
        ("ok defect smear", {}, "3 labels for 2 classes"),
        ("ok defect", {"newst_weight": 4}, "'newst_weight' is not known"),
        ("ok defect", {"newest_weight": "much"}, "newest_weight is 'much'"),
        ("ok defect", {"newest_since": "yesterday"}, "newest_since"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(
    tmp_path: Path, dataset: Path, labels: str, parameters: dict[str, Any], said: str
) -> None:
    scratch_model(tmp_path / "base", labels=labels)
    trained = Trained(tmp_path, dataset, parameters=parameters)
    assert said in trained.refusal
    assert not (trained.output / "metrics.json").exists()


def test_the_head_is_found_by_the_name_that_the_model_gives_it(tmp_path: Path) -> None:
    path = scratch_model(tmp_path / "base")
    model = ov.Core().read_model(path)
    network = read_network(tmp_path / "base")
    features = network.matmul.input_value(0).get_node().get_friendly_name()
    model.set_rt_info(features, ["model_info", "feature_output"])
    for name in ("named", "wrong"):
        (tmp_path / name).mkdir()
    ov.save_model(model, tmp_path / "named" / "model.xml", compress_to_fp16=False)
    assert read_network(tmp_path / "named").matmul.get_friendly_name() == network.matmul.get_friendly_name()
    model.set_rt_info("nothing", ["model_info", "feature_output"])
    ov.save_model(model, tmp_path / "wrong" / "model.xml", compress_to_fp16=False)
    with pytest.raises(TrainerError, match="'nothing'"):
        read_network(tmp_path / "wrong")


def test_inputs_of_another_shape_or_type_are_left_out(tmp_path: Path) -> None:
    wide = np.zeros((1, 4, 4, 1), np.uint8)
    np.save(tmp_path / "wide.npy", wide)
    np.save(tmp_path / "flat.npy", wide[0])
    np.save(tmp_path / "float.npy", wide.astype(np.float32))
    found = read_input(tmp_path / "flat.npy", (1, 4, 4, 1), np.uint8)
    assert found is not None
    assert found.shape == (1, 4, 4, 1)
    coloured = read_input(tmp_path / "wide.npy", (1, -1, -1, 3), np.uint8)
    assert coloured is not None
    assert coloured.shape == (1, 4, 4, 3)
    assert read_input(tmp_path / "wide.npy", (1, 5, 5, 1), np.uint8) is None
    assert read_input(tmp_path / "float.npy", (1, 4, 4, 1), np.uint8) is None


def items(*described: tuple[str, float, str]) -> Sequence[Item]:
    return [
        Item(path=Path("x.png"), label="ok", split="TRAIN", weight=weight, agent=agent, line="", capture_time=time)
        for agent, weight, time in described
    ]


@pytest.mark.parametrize(
    ("parameters", "factor"),
    [
        ({}, 2.0),
        ({"newest_weight": 1.5}, 1.5),
        ({"newest_since": "2026-01-01T00:00:00Z"}, 1.0),
        ({"newest_since": "2026-06-01T00:00:00Z", "newest_weight": 9}, 5.0),
    ],
)
def test_what_is_new_counts_as_much_as_what_is_old(parameters: dict[str, Any], factor: float) -> None:
    rows = items(*[("", 1.0, "2026-03-01T00:00:00Z")] * 4, ("st-1", 1.0, "2026-05-01T00:00:00Z"),
                 ("st-1", 1.0, "2026-07-01T00:00:00Z"))  # fmt: skip
    weights = weights_of(Task(base=Path(), output=Path(), items=rows, parameters=parameters), rows)
    assert weights.tolist()[-1] == factor
    assert weights.tolist()[:4] == [1.0] * 4


def test_a_weight_of_the_dataset_is_kept_and_one_that_is_none_refused() -> None:
    rows = items(("", 2.0, ""), ("", 3.0, ""))
    assert weights_of(Task(base=Path(), output=Path(), items=rows), rows).tolist() == [2.0, 3.0]
    broken = items(("", 0.0, ""))
    with pytest.raises(TrainerError, match="above 0"):
        weights_of(Task(base=Path(), output=Path(), items=broken), broken)


@pytest.mark.parametrize(("train", "module"), [(finetune.train, "torch"), (quantize.train, "nncf")])
def test_a_trainer_whose_extra_is_missing_says_what_to_install(
    tmp_path: Path, dataset: Path, train: Callable[[Task], None], module: str
) -> None:
    scratch_model(tmp_path / "base")
    trained = Trained(tmp_path, dataset, train=train)
    if find_spec(module) is None:
        assert f"{module} is not installed" in trained.refusal
    else:
        assert not trained.refusal
        assert trained.model.exists() or (trained.output / "declined.json").exists()


def test_as_a_program_a_refusal_is_the_last_line(tmp_path: Path, dataset: Path) -> None:
    scratch_model(tmp_path / "base")
    trained = Trained(tmp_path, dataset, parameters={"nothing": 1})
    command = [sys.executable, "-m", "controlplane.trainers.head", *trained.arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [trained.refusal]
