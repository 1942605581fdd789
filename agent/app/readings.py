"""What a model said of each item of a request."""

from collections.abc import Mapping, Sequence

from agent.app import tensors
from agent.app.ports import Tensor
from agent.domain.artifact import ModelSignature
from agent.domain.interpretation import LABELS_MAX, Reading, interpret
from agent.domain.result import LabelScore


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
    return [interpret(reading, row, labels_max=labels_max) for row in rows]
