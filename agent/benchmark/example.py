"""Inputs of a signature: one item, a fixed noise for floats, zeros for integers (they may be indices)."""

import numpy as np

from agent import limits
from agent.app.ports import Tensor
from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.errors import RequestError

DATATYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def example_inputs(signature: ModelSignature) -> dict[str, Tensor]:
    """Raises RequestError for a datatype that a bench cannot make."""
    rng = np.random.default_rng(0)
    return {spec.name: _example(spec, rng) for spec in signature.inputs}


def _example(spec: TensorSpec, rng: np.random.Generator) -> Tensor:
    kind = DATATYPES.get(spec.datatype)
    if kind is None:
        raise RequestError(
            f"input {spec.name!r} is {spec.datatype}", field="--slot", remedy="a bench makes numbers and booleans only"
        )
    free = (1, *(limits.DYNAMIC_DIMENSION_MEASURED for _ in spec.shape))
    shape = [size if size > 0 else free[min(place, 1)] for place, size in enumerate(spec.shape)]
    if issubclass(kind, np.floating):
        return rng.random(shape).astype(kind)
    return np.zeros(shape, kind)
