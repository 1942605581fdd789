"""`python -m controlplane.trainers.head`: refits the last linear layer of the base version.

Features are the base version's own, computed by OpenVINO; the head is a logistic regression by scikit-learn; the
candidate is the base version with other constants in that layer. Seconds for a thousand pictures, no torch.

What it claims is of a fit to the TRAIN items, measured on the VALIDATION items; the candidate is then fitted to both.
Parameters: `regularisation` (C of the regression), and those of `weighting`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import openvino as ov

from controlplane.trainers import weighting
from controlplane.trainers.contract import TRAIN, VALIDATION, Item, Task, TrainerError, run
from controlplane.trainers.metrics import Truth, measure
from controlplane.trainers.network import (
    Activation,
    Floats,
    Network,
    extract_features,
    feature_model,
    read_network,
    replace_head,
)

_PARAMETERS = weighting.PARAMETERS | {"regularisation"}
_REGULARISATION = 0.01
"""Features outnumber items, so strongly regularised; weaker or stronger by ten costs what the base version could do."""
_SKIPPED_SHARE_MAX = 0.5
_DEVIATION_SHARE_MIN = 0.02
_ITERATIONS = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Items with their features, in one order."""

    items: Sequence[Item]
    features: Floats
    classes: npt.NDArray[np.intp]
    """Places among the labels."""
    weights: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One linear layer on raw features."""

    weights: Floats
    """[features, outputs]"""
    bias: Floats


def train(task: Task) -> None:
    """Write the candidate and its metrics. Raises TrainerError."""
    task.check_parameters(_PARAMETERS)
    network = read_network(task.base)
    labels = class_labels(network)
    examples = examples_of(task, network, labels)
    training, validation = split_of(examples, TRAIN), split_of(examples, VALIDATION)
    _check(training, labels)
    task.tell(0.9, f"fitting {training.features.shape[1]} features of {len(training.items)} items")
    regularisation = task.number("regularisation", _REGULARISATION, least=1e-6, most=1e6)
    metrics = _report(network, fit(network, training, regularisation), training, validation, labels)
    head = fit(network, examples, regularisation) if validation.items else fit(network, training, regularisation)
    replace_head(network, head.weights, head.bias)
    (task.output / "model").mkdir(exist_ok=True)
    task.copy_companions(network.path)
    ov.save_model(network.model, task.output / "model" / "model.xml", compress_to_fp16=False)
    task.deliver(metrics | {"items_left_out": float(len(task.items) - len(examples.items))})
    task.tell(1.0, ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())))


def class_labels(network: Network) -> tuple[str, ...]:
    """Labels by class. Raises TrainerError where they are not as many as the head has classes."""
    classes = 2 if network.outputs == 1 else network.outputs
    if len(network.labels) != classes:
        raise TrainerError(
            f"the base version has {len(network.labels)} labels for {classes} classes; correct model_info/labels"
        )
    if network.outputs == 1 and network.activation is Activation.SOFTMAX:
        raise TrainerError("the base version has a Softmax of one number; use another trainer")
    return network.labels


def fit(network: Network, examples: Examples, regularisation: float) -> Head:
    """Logistic regression on standardised features, folded into a linear layer on the raw ones."""
    features = examples.features.astype(np.float64)
    mean, scale = features.mean(axis=0), _scale(features)
    scaled = (features - mean) / scale
    if network.outputs > 1 and network.activation is Activation.SIGMOID:
        # Each number answers for itself whether it is this class.
        fitted = [
            _regress(scaled, examples.classes == place, examples.weights, regularisation)
            for place in range(network.outputs)
        ]
        coefficients = np.concatenate([coefficient for coefficient, _ in fitted])
        intercepts = np.concatenate([intercept for _, intercept in fitted])
    else:
        coefficients, intercepts = _regress(scaled, examples.classes, examples.weights, regularisation)
    if network.outputs == 2 and len(coefficients) == 1:
        # Of two classes one set is fitted: the difference of theirs.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weights = coefficients / scale
    return Head(
        weights=np.ascontiguousarray(weights.T, dtype=np.float32),
        bias=(intercepts - weights @ mean).astype(np.float32),
    )


def _scale(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What each feature is divided by: its deviation, yet never so little that what a station's processor rounds away
    (bf16 keeps a 256th of a number) would be taken for news."""
    size = np.sqrt((features**2).mean(axis=0))
    scale: npt.NDArray[np.float64] = np.maximum(features.std(axis=0), _DEVIATION_SHARE_MIN * size)
    scale[scale == 0] = 1.0
    return scale


def logits(head: Head, features: Floats) -> npt.NDArray[np.float64]:
    """Numbers of the head, [items, outputs]."""
    return features.astype(np.float64) @ head.weights.astype(np.float64) + head.bias


def _regress(
    features: npt.NDArray[np.float64],
    classes: npt.NDArray[np.intp] | npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float64],
    regularisation: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=regularisation, max_iter=_ITERATIONS).fit(features, classes, sample_weight=weights)
    return fitted.coef_, fitted.intercept_


def examples_of(task: Task, network: Network, labels: Sequence[str], *, share: float = 0.9) -> Examples:
    """The items with their features; `share` of the whole work is told as done at its end. Raises TrainerError."""
    strangers = sorted({item.label for item in task.items} - set(labels))
    if strangers:
        raise TrainerError(
            f"the label {strangers[0]!r} is none of the base version's ({', '.join(labels)}); correct it, or publish a "
            "base version with that class"
        )
    kept = extract_features(feature_model(network), task.items, _teller(task, share))
    items = [task.items[place] for place in sorted(kept)]
    if len(items) < (1 - _SKIPPED_SHARE_MAX) * len(task.items):
        raise TrainerError(
            f"{len(task.items) - len(items)} of {len(task.items)} contents have another shape or type than the base "
            "version takes; bring them to its size first"
        )
    if not items:
        raise TrainerError("the dataset has no item to train on; label more")
    return Examples(
        items=items,
        features=np.stack([kept[place] for place in sorted(kept)]),
        classes=np.array([labels.index(item.label) for item in items]),
        weights=weighting.weights_of(task, items),
    )


def _teller(task: Task, share: float) -> Callable[[int], None]:
    """Tells every twentieth."""
    total = max(len(task.items), 1)
    step = max(total // 20, 1)

    def tell(done: int) -> None:
        if done % step == 0 or done == total:
            task.tell(share * done / total, f"features of {done} of {total} items")

    return tell


def split_of(examples: Examples, split: str) -> Examples:
    """The examples of one split."""
    rows = [row for row, item in enumerate(examples.items) if item.split == split]
    return Examples(
        items=[examples.items[row] for row in rows],
        features=examples.features[rows],
        classes=examples.classes[rows],
        weights=examples.weights[rows],
    )


def _check(training: Examples, labels: Sequence[str]) -> None:
    present = set(training.classes.tolist())
    missing = [label for place, label in enumerate(labels) if place not in present]
    if missing:
        raise TrainerError(f"no item to train on has the label {missing[0]!r}; label some")


def _report(
    network: Network, head: Head, training: Examples, validation: Examples, labels: Sequence[str]
) -> dict[str, float]:
    metrics = {"training_items": float(len(training.items)), "validation_items": float(len(validation.items))}
    for name, examples in (("training", training), ("validation", validation)):
        if examples.items:
            metrics |= measure(name, network, logits(head, examples.features), _truth(examples), labels)
    return metrics


def _truth(examples: Examples) -> Truth:
    return Truth(classes=examples.classes, weights=examples.weights, lines=tuple(item.line for item in examples.items))


if __name__ == "__main__":
    run(train)
