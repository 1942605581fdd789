"""From a folder of pictures to a dataset by the command line alone, against a real controller."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controller import ControllerProcess
from tests.support.dataset_factories import picture
from tests.support.models import classifier_ir

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControllerProcess]:
    folder = tmp_path_factory.mktemp("datasets")
    controller = ControllerProcess(folder=folder / "controller")
    assert controller.init().returncode == 0
    controller.start()
    assert lineside(controller, "models", "publish", "cells", str(classifier_ir(folder, bias=1.0))).returncode == 0
    yield controller
    controller.kill()


def lineside(controller: ControllerProcess, *words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "controlplane.cli.main", "--config", str(controller.operator_file)]
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=120)  # noqa: PLW1510


def test_pictures_and_labels_become_a_dataset(controller: ControllerProcess, tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    cells.mkdir()
    rows, labels = ["file,label,part"], tmp_path / "labels.csv"
    words = ("samples", "add", cells, "--model", "cells", "--labels", labels, "--line", "3")
    for number in range(40):
        (cells / f"c{number}.png").write_bytes(picture(number))
        rows.append(f"c{number}.png,{('good', 'crack')[number % 2]},cell-{number}")
        if number == 15:
            # Half of the pictures, then the controller is killed: the rest comes by running the command again.
            labels.write_text("\n".join(rows))
            half = lineside(controller, *words)
            assert half.stdout.splitlines()[0] == "16 samples added, 0 were there"
            controller.kill()
            controller.start()
    (cells / "broken.png").write_bytes(b"no picture")
    labels.write_text("\n".join(rows))
    added = lineside(controller, *words)
    assert added.returncode == 0
    assert added.stdout.splitlines() == [
        "24 samples added, 16 were there",
        "24 labels added, 16 were there: crack 20, good 20",
    ]
    assert "broken.png: content: it is no picture" in added.stderr

    frozen = lineside(controller, "datasets", "freeze", "cells", "--holdout", "30", "--weight", "label=crack:2")
    assert frozen.stdout == "cells-1\n"
    (dataset,) = json.loads(lineside(controller, "datasets", "list", "--model", "cells", "--output", "json").stdout)
    held = sum(count["count"] for count in dataset["counts"] if count["split"] == "HOLDOUT")
    assert 0 < held < 30
    assert "HOLDOUT" in lineside(controller, "datasets", "show", "cells-1").stdout

    out = tmp_path / "out"
    assert lineside(controller, "datasets", "export", "cells-1", "--out", out).returncode == 0
    given = {path.stem for path in out.rglob("*.png")}
    assert len(given) == 40 - held
    released = tmp_path / "held"
    assert lineside(controller, "datasets", "export", "cells-1", "--holdout", "--out", released).returncode == 0
    assert {path.stem for path in released.rglob("*.png")}.isdisjoint(given)
    audited = lineside(controller, "audit", "list", "--action", "dataset.release_holdout", "--output", "json")
    assert [event["actor"] for event in json.loads(audited.stdout)] == ["operators/admin"]

    sheet = tmp_path / "sheet.png"
    assert lineside(controller, "datasets", "sheet", "cells-1", "--out", sheet, "--pictures", "5").returncode == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_a_file_with_a_fault_changes_nothing_and_opinions_may_differ(
    controller: ControllerProcess, tmp_path: Path
) -> None:
    pictures = tmp_path / "parts"
    pictures.mkdir()
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label,part\n" + "".join(f"c{one}.png,crack,cell-{one}\n" for one in range(1, 4)))
    for number in range(1, 4):
        (pictures / f"c{number}.png").write_bytes(picture(100 + number))
    assert lineside(controller, "models", "publish", "parts", classifier_ir(tmp_path, bias=2.0)).returncode == 0
    assert lineside(controller, "samples", "add", pictures, "--model", "parts", "--labels", labels).returncode == 0

    faulty = tmp_path / "faulty.csv"
    faulty.write_text("part,label\ncell-1,good\nnobody,good\ncell-1,crack\n")
    refused = lineside(controller, "samples", "import", faulty, "--model", "parts", "--annotator", "bea")
    assert refused.returncode == 2
    assert "line 3: target: " in refused.stderr
    assert "line 4: label: " in refused.stderr
    told = lineside(controller, "samples", "import", faulty, "--model", "parts", "--output", "json")
    assert json.loads(told.stderr)["error"]["reason"] == "LABELS_REFUSED"

    fine = tmp_path / "fine.csv"
    fine.write_text("part,label\ncell-1,good\ncell-2,crack\n")
    words = ("samples", "import", fine, "--model", "parts", "--annotator", "bea")
    assert (
        lineside(controller, *words, "--dry-run").stdout == "2 labels would be added, 0 were there: crack 1, good 1\n"
    )
    assert lineside(controller, *words).stdout == "2 labels added, 0 were there: crack 1, good 1\n"
    assert lineside(controller, *words).stdout == "0 labels added, 2 were there: crack 1, good 1\n"
    listed = json.loads(lineside(controller, "labels", "list", "--annotator", "bea", "--output", "json").stdout)
    assert len(listed) == 2
    (conflict,) = json.loads(lineside(controller, "labels", "conflicts", "--model", "parts", "--output", "json").stdout)
    assert lineside(controller, "samples", "label", conflict["sample"], "good", "--adjudicate").returncode == 0
    assert lineside(controller, "labels", "conflicts", "--model", "parts", "--output", "json").stdout == "[]\n"

    exported = tmp_path / "all.csv"
    assert lineside(controller, "samples", "export", "--model", "parts", "--out", exported).returncode == 0
    with exported.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5
    again = lineside(controller, "samples", "import", exported, "--model", "parts")
    assert again.stdout.startswith("0 labels added, 5 were there")
