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

LONG_ROW = 16
"""From so many scores on numpy is the quicker."""

_Row = npt.NDArray[np.floating]


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
    """As `interpret`, of a row of two or more scores, in as few calls of numpy as can be."""
    # A score grows with its value, so the best are found among the values, and computed for them alone.
    best, values = _best(row, labels_max)
    lowest, highest = float(np.minimum.reduce(row)), values[0]
    if not (math.isfinite(lowest) and math.isfinite(highest)) or reading.scoring is Scoring.SINGLE:
        return ()
    probable = lowest >= 0.0 and highest <= 1.0
    if reading.scoring is Scoring.MULTILABEL:
        scores = values if probable else [_sigmoid(value) for value in values]
    elif probable and abs(float(np.add.reduce(row)) - 1.0) <= SUM_TOLERANCE:
        scores = values
    else:
        total = float(np.add.reduce(np.exp(row - row.dtype.type(highest))))
        scores = [math.exp(value - highest) / total for value in values]
    return tuple(
        LabelScore(label=label_of(reading.labels, index), score=score)
        for index, score in zip(best, scores, strict=True)
    )


def _sigmoid(value: float) -> float:
    small = math.exp(-abs(value))
    return (1.0 if value >= 0 else small) / (1.0 + small)


def _best(row: _Row, count: int) -> tuple[list[int], list[float]]:
    """Indices of the highest values and these, the lower index first where two are alike."""
    if count < row.size:
        found = row.argpartition(row.size - count - 1)[row.size - count - 1 :]
        indices, values = found.tolist(), row[found].tolist()
        ordered = sorted(zip(indices, values, strict=True), key=_value_then_index)
        if ordered[count - 1][1] > ordered[count][1]:
            return [index for index, _ in ordered[:count]], [value for _, value in ordered[:count]]
        # The last place is shared, and what was found is any of those that share it; or something is no number.
    order = np.argsort(-row, kind="stable")[:count]
    return order.tolist(), row[order].tolist()


def _value_then_index(found: tuple[int, float]) -> tuple[float, int]:
    return -found[1], found[0]
