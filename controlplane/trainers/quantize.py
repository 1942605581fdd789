"""`python -m controlplane.trainers.quantize`: an INT8 candidate of the base version. Needs nncf.

Activations are calibrated on TRAIN items; the candidate is kept only where it is within a bound of the base version on
the VALIDATION items and really faster on the processor of this machine, measured in turns; else the trainer declines
and says the numbers. Parameters: `auc_drop_max`, `speedup_min`, `calibration_items`.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from controlplane.trainers.contract import TRAIN, VALIDATION, Item, Task, TrainerError, run
from controlplane.trainers.head import class_labels
from controlplane.trainers.inputs import Array, read_input
from controlplane.trainers.metrics import Truth, auc_of_scores
from controlplane.trainers.network import Network, read_network

_PARAMETERS = frozenset({"auc_drop_max", "speedup_min", "calibration_items"})
_TURNS = 7
_TURN_INFERENCES = 30


def train(task: Task) -> None:
    """Write the candidate and its metrics, or decline. Raises TrainerError."""
    nncf = _nncf()
    task.check_parameters(_PARAMETERS)
    drop_max = task.number("auc_drop_max", 0.01, least=0.0, most=1.0)
    speedup_min = task.number("speedup_min", 1.1, least=0.0, most=100.0)
    count = int(task.number("calibration_items", 300, least=1, most=100_000))
    network = read_network(task.base)
    labels = class_labels(network)
    calibration = [content for _, content in _contents(network, task.of(TRAIN)[:count])]
    validation = _contents(network, task.of(VALIDATION))
    if not calibration or not validation:
        raise TrainerError("there is no item to calibrate with or to validate with; freeze a dataset with both")
    task.tell(0.1, f"calibrating on {len(calibration)} items")
    quantised = nncf.quantize(network.model, nncf.Dataset(calibration), preset=nncf.QuantizationPreset.MIXED)
    task.tell(0.7, f"comparing on {len(validation)} items")
    inputs = [content for _, content in validation]
    truth = _truth([item for item, _ in validation], labels)
    before, after = _compiled(network.model), _compiled(quantised)
    auc_before, auc_after = (auc_of_scores(_scores(one, inputs), truth) for one in (before, after))
    speedup = _speedup(before, after, inputs)
    metrics = {"validation_auc_base": auc_before, "validation_auc": auc_after, "speedup": speedup}
    told = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    if auc_before - auc_after > drop_max or speedup < speedup_min:
        task.decline(f"{told}; asked for were a drop of at most {drop_max:g} and a speedup of {speedup_min:g}")
        return
    (task.output / "model").mkdir(exist_ok=True)
    task.copy_companions(network.path)
    ov.save_model(quantised, task.output / "model" / "model.xml", compress_to_fp16=False)
    task.deliver(metrics)
    task.tell(1.0, told)


def _nncf() -> Any:
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise TrainerError("nncf is not installed; pip install 'lineside[quantize]' for the controller") from error
    return nncf


def _contents(network: Network, items: Sequence[Item]) -> list[tuple[Item, Array]]:
    port = network.model.inputs[0]
    shape = [-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    dtype = port.get_element_type().to_dtype()
    read = [(item, read_input(item.path, shape, dtype)) for item in items]
    return [(item, content) for item, content in read if content is not None]


def _truth(items: Sequence[Item], labels: Sequence[str]) -> Truth:
    strangers = {item.label for item in items} - set(labels)
    if strangers:
        raise TrainerError(f"the label {min(strangers)!r} is none of the base version's; correct it")
    return Truth(
        classes=np.array([labels.index(item.label) for item in items]),
        weights=np.ones(len(items)),
        lines=tuple(item.line for item in items),
    )


def _compiled(model: Any) -> Any:
    return ov.Core().compile_model(model, "CPU").create_infer_request()


def _scores(request: Any, inputs: Sequence[Array]) -> npt.NDArray[np.float64]:
    return np.stack([np.array(next(iter(request.infer([one]).values()))).reshape(-1) for one in inputs]).astype(float)


def _speedup(before: Any, after: Any, inputs: Sequence[Array]) -> float:
    """How many times faster, as the median over turns: both meet whatever else the machine does."""
    ratios = []
    for turn in range(_TURNS + 1):
        one, other = _turn_seconds(before, inputs), _turn_seconds(after, inputs)
        if turn:
            ratios.append(one / other)
    return statistics.median(ratios)


def _turn_seconds(request: Any, inputs: Sequence[Array]) -> float:
    start = time.perf_counter()
    for place in range(_TURN_INFERENCES):
        request.infer([inputs[place % len(inputs)]])
    return time.perf_counter() - start


if __name__ == "__main__":
    run(train)
