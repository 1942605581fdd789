"""What a model's outputs say of classes, by the rules that agents answer applications with (docs/inference.md).

- A floating output [N, C] with C > 1 holds classes. A row that is no distribution goes through softmax, or each value
  through a sigmoid where rt_info's `model_info/multilabel` is true.
- A floating output [N, 1] or [N] of probabilities is the score of the second label.
- Trailing dimensions of size 1 do not count. The first such output is it.
- A model whose `model_info/model_type` names another task has no classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, isfinite

from controlplane.domain.catalog import ModelSignature, TensorSpec

_FLOATING = frozenset({"FP16", "BF16", "FP32", "FP64"})
_TRUE = frozenset({"true", "yes", "1"})
_SUM_TOLERANCE = 0.02
"""Probabilities of 16 bits add up to 1 only so closely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOutput:
    """Where a model says it, and how."""

    index: int
    """Of the output."""
    labels: tuple[str, ...]
    """Of its classes, in their order; classes beyond them go by their number."""
    single: bool
    """One probability an item, of the second label."""
    multilabel: bool = False

    def label(self, place: int) -> str:
        return self.labels[place] if place < len(self.labels) else str(place)


def find_classes(signature: ModelSignature) -> ClassOutput | None:
    """Return the first output that holds classes; None where none does."""
    task = signature.rt_info.get("model_info/model_type", "").lower()
    if task and "classification" not in task:
        return None
    labels = tuple(signature.rt_info.get("model_info/labels", "").split())
    for index, output in enumerate(signature.outputs):
        classes = _class_count(output)
        if classes is not None:
            multilabel = signature.rt_info.get("model_info/multilabel", "").lower() in _TRUE
            return ClassOutput(index=index, labels=labels, single=classes == 1, multilabel=multilabel)
    return None


def class_scores(output: ClassOutput, row: Sequence[float]) -> tuple[float, ...] | None:
    """Scores of all classes, from 0 to 1, of one item's row; None where the row says nothing."""
    if not row or not all(isfinite(value) for value in row):
        return None
    if len(row) == 1:
        # A value outside of 0 to 1 is a regression, or a score of unknown scale.
        return (1.0 - row[0], row[0]) if 0.0 <= row[0] <= 1.0 else None
    if output.single:
        return None
    shares = all(0.0 <= value <= 1.0 for value in row)
    if output.multilabel:
        return tuple(row) if shares else tuple(_sigmoid(value) for value in row)
    if shares and abs(fsum(row) - 1.0) <= _SUM_TOLERANCE:
        return tuple(row)
    return _softmax(row)


def _class_count(output: TensorSpec) -> int | None:
    """Classes of an output of scores, -1 where only inference tells; None for any other output."""
    shape = output.shape
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if output.datatype not in _FLOATING or not 1 <= len(shape) <= 2:
        return None
    return 1 if len(shape) == 1 else shape[1]


def _softmax(row: Sequence[float]) -> tuple[float, ...]:
    top = max(row)
    powers = [exp(value - top) for value in row]
    total = fsum(powers)
    return tuple(power / total for power in powers)


def _sigmoid(value: float) -> float:
    # Each branch takes the exponential of a negative number: it cannot overflow.
    return 1.0 / (1.0 + exp(-value)) if value >= 0 else exp(value) / (1.0 + exp(value))
