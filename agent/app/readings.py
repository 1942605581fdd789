"""What a model said of each item of a request.

`agent.domain.interpretation` says what holds. Long rows are read by numpy to the same end: an ImageNet classifier's
thousand scores cost a third of a millisecond in plain Python, which is more than some models need to infer.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from agent.app import tensors
from agent.app.ports import Tensor
from agent.domain.artifact import ModelSignature
from agent.domain.interpretation import LABELS_MAX, SUM_TOLERANCE, Reading, Scoring, interpret, label_of
from agent.domain.result import LabelScore

LONG_ROW = 32
"""From so many scores on numpy is the quicker."""

_Row = npt.NDArray[np.float64]


def labels_of_items(
    signature: ModelSignature,
    reading: Reading | None,
    arrays: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    *,
    labels_max: int = LABELS_MAX,
) -> Sequence[tuple[LabelScore, ...]]:
    """The labels of each batch item, best first."""
    if reading is None:
        return [()] * tensors.batch_items(signature, arrays)
    scores = outputs[reading.output]
    items = tensors.batch_items(signature, arrays, scores)
    datatype = next(spec.datatype for spec in signature.outputs if spec.name == reading.output)
    rows = tensors.floats(scores.reshape(items, -1), datatype)
    if rows.shape[1] < LONG_ROW:
        return [interpret(reading, row, labels_max=labels_max) for row in rows.tolist()]
    return [interpret_long(reading, row, labels_max=labels_max) for row in rows]


def interpret_long(reading: Reading, row: _Row, *, labels_max: int) -> tuple[LabelScore, ...]:
    """As `interpret`, of a row of two or more scores."""
    lowest, highest = float(row.min()), float(row.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)) or reading.scoring is Scoring.SINGLE:
        return ()
    probable = lowest >= 0.0 and highest <= 1.0
    if reading.scoring is Scoring.MULTILABEL:
        scores = row if probable else _sigmoid(row)
    else:
        scores = row if probable and abs(float(row.sum()) - 1.0) <= SUM_TOLERANCE else _softmax(row, highest)
    return tuple(
        LabelScore(label=label_of(reading.labels, index), score=float(scores[index]))
        for index in _best(scores, labels_max).tolist()
    )


def _sigmoid(row: _Row) -> _Row:
    small = np.exp(-np.abs(row))
    scores: _Row = np.where(row >= 0, 1.0, small) / (1.0 + small)
    return scores


def _softmax(row: _Row, highest: float) -> _Row:
    weights = np.exp(row - highest)
    scores: _Row = weights / weights.sum()
    return scores


def _best(scores: _Row, count: int) -> npt.NDArray[np.intp]:
    """Indices of the highest scores, the lower index first where two are alike."""
    if count >= scores.size:
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, scores.size - count)[scores.size - count]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]
