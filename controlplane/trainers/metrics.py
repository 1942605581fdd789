"""What a trainer says of its candidate. It is for whoever reads the run: the controller measures anew, on a holdout
that no trainer sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controlplane.trainers.network import Activation, Network

_RESAMPLINGS, _CLEAR_SHARE = 200, 0.95

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is right, by item."""

    classes: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]
    lines: Sequence[str]


def probabilities(network: Network, numbers: Scores) -> Scores:
    """Of each class, [items, classes]."""
    if network.outputs == 1:
        positive = 1 / (1 + np.exp(-numbers[:, 0]))
        return np.stack([1 - positive, positive], axis=1)
    if network.activation is Activation.SIGMOID:
        each: Scores = 1 / (1 + np.exp(-numbers))
        return each
    powers = np.exp(numbers - numbers.max(axis=1, keepdims=True))
    shares: Scores = powers / powers.sum(axis=1, keepdims=True)
    return shares


def mean_auc(network: Network, numbers: Scores, truth: Truth) -> float:
    """Area under the curve, a mean over classes, of the numbers of a head."""
    return auc_of_scores(probabilities(network, numbers), truth)


def is_clearly_worse(
    network: Network, numbers: Scores, before: Scores, truth: Truth, draw: np.random.Generator
) -> bool:
    """Whether the mean area under the curve is below that of the numbers before in 19 of 20 resamplings of the items
    (a paired bootstrap). False where there are no items."""
    worse = 0
    for _ in range(_RESAMPLINGS if len(numbers) else 0):
        rows = draw.integers(0, len(numbers), len(numbers))
        drawn = Truth(classes=truth.classes[rows], weights=truth.weights[rows], lines=())
        worse += mean_auc(network, numbers[rows], drawn) < mean_auc(network, before[rows], drawn)
    return worse >= _CLEAR_SHARE * _RESAMPLINGS


def auc_of_scores(scores: Scores, truth: Truth) -> float:
    """Area under the curve, weighted, a mean over the classes that are there; 0.5 where nothing can be told apart."""
    from sklearn.metrics import roc_auc_score

    found = [
        float(roc_auc_score(truth.classes == place, scores[:, column], sample_weight=truth.weights))
        for column, place in _columns(scores)
        if 0 < np.count_nonzero(truth.classes == place) < len(truth.classes)
    ]
    return float(np.mean(found)) if found else 0.5


def _columns(scores: Scores) -> list[tuple[int, int]]:
    """Columns of scores with the class that each stands for; of two classes the second is enough."""
    if scores.shape[1] <= 2:
        return [(scores.shape[1] - 1, 1)]
    return [(place, place) for place in range(scores.shape[1])]


def measure(name: str, network: Network, numbers: Scores, truth: Truth, labels: Sequence[str]) -> dict[str, float]:
    """Accuracy, and area under the curve of each class, over all and by line where both are there."""
    from sklearn.metrics import roc_auc_score

    found = probabilities(network, numbers)
    metrics = {f"{name}_accuracy": float(np.mean(found.argmax(axis=1) == truth.classes))}
    groups = {"": np.ones(len(truth.classes), dtype=bool)}
    groups |= {f"/line={line}": np.array(truth.lines) == line for line in sorted(set(truth.lines)) if line}
    for suffix, rows in groups.items():
        for place in range(1 if len(labels) == 2 else 0, len(labels)):
            right = truth.classes[rows] == place
            if right.any() and not right.all():
                metrics[f"{name}_auc/{labels[place]}{suffix}"] = float(roc_auc_score(right, found[rows, place]))
    return metrics
