"""What a model's outputs say: labels with scores, where they are scores of classes.

- A floating output [N, C] with C > 1 is a classification. Rows that are no probabilities go through softmax, or through
  a sigmoid each where rt_info's `model_info/multilabel` is True.
- A floating output [N, 1] or [N] whose values are probabilities is the score of the positive label, the second one.
- Trailing dimensions of size 1 do not count. Anything else, and any row that is not finite, says nothing: no labels.
- A model whose rt_info names another task in `model_info/model_type` says nothing either.
Labels come from rt_info's `model_info/labels`, separated by spaces; without them a class is called by its index.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.result import LabelScore

LABELS_MAX = 5
"""As Result.labels has it."""
_FLOATING = frozenset({"FP16", "BF16", "FP32", "FP64"})
SUM_TOLERANCE = 0.02
"""Rows of bf16 probabilities add up to 1 only this closely."""


class Scoring(Enum):
    SINGLE = auto()
    """One probability an item, of the second label."""
    EXCLUSIVE = auto()
    """One class an item is right."""
    MULTILABEL = auto()
    """Each class is a question of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which output of a model holds the scores, and how to read a row of it."""

    output: str
    scoring: Scoring
    labels: tuple[str, ...]


def reading_of(signature: ModelSignature) -> Reading | None:
    """How to read the model's first output that holds scores of classes; None where none does."""
    if not _may_classify(signature.rt_info):
        return None
    labels = tuple(signature.rt_info.get("model_info/labels", "").split())
    multilabel = signature.rt_info.get("model_info/multilabel", "").lower() in {"true", "yes", "1"}
    for output in signature.outputs:
        classes = _classes(output)
        if classes is None:
            continue
        scoring = Scoring.SINGLE if classes == 1 else Scoring.MULTILABEL if multilabel else Scoring.EXCLUSIVE
        return Reading(output=output.name, scoring=scoring, labels=labels)
    return None


def interpret(reading: Reading, row: Sequence[float], *, labels_max: int = LABELS_MAX) -> tuple[LabelScore, ...]:
    """The labels of one batch item, best first, at most `labels_max`; `row` is its part of the output."""
    if not row or not all(map(math.isfinite, row)):
        return ()
    if len(row) == 1:
        return _single(reading.labels, row[0])
    if reading.scoring is Scoring.SINGLE:
        return ()
    scores = _multilabel(row) if reading.scoring is Scoring.MULTILABEL else _exclusive(row)
    best = heapq.nsmallest(labels_max, range(len(scores)), key=lambda index: (-scores[index], index))
    return tuple(LabelScore(label=label_of(reading.labels, index), score=scores[index]) for index in best)


def _may_classify(rt_info: Mapping[str, str]) -> bool:
    task = rt_info.get("model_info/model_type", "").lower()
    return not task or "classification" in task


def _classes(output: TensorSpec) -> int | None:
    """Classes of an output of scores, -1 when only known at inference, None for any other output."""
    shape = list(output.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    if output.datatype not in _FLOATING or len(shape) not in {1, 2}:
        return None
    return shape[1] if len(shape) == 2 else 1


def _single(labels: tuple[str, ...], positive: float) -> tuple[LabelScore, ...]:
    if not 0.0 <= positive <= 1.0:
        return ()  # a regression, or a raw score whose scale is not known
    both = (
        LabelScore(label=label_of(labels, 0), score=1.0 - positive),
        LabelScore(label=label_of(labels, 1), score=positive),
    )
    return both if positive < 0.5 else both[::-1]


def _exclusive(row: Sequence[float]) -> list[float]:
    if all(0.0 <= value <= 1.0 for value in row) and abs(math.fsum(row) - 1.0) <= SUM_TOLERANCE:
        return list(row)
    highest = max(row)
    weights = [math.exp(value - highest) for value in row]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _multilabel(row: Sequence[float]) -> list[float]:
    if all(0.0 <= value <= 1.0 for value in row):
        return list(row)
    return [
        1.0 / (1.0 + math.exp(-value)) if value >= 0 else math.exp(value) / (1.0 + math.exp(value)) for value in row
    ]


def label_of(labels: tuple[str, ...], index: int) -> str:
    """The label of a class, its index where it has none."""
    return labels[index] if index < len(labels) else str(index)
