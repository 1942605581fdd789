"""What the child prints: a signature or a refusal as one JSON object. The parent trusts none of it."""

import json
from types import MappingProxyType
from typing import Any

from controlplane import limits
from controlplane.domain.catalog import ModelSignature, TensorSpec
from controlplane.domain.errors import FieldInvalidError
from controlplane.inspection.entry import unreadable

REMEDY = "open the files with OpenVINO's read_model on your side, export them again and publish that"


def signature_json(signature: ModelSignature) -> str:
    return json.dumps(
        {
            "format": signature.format,
            "entry_path": signature.entry_path,
            "inputs": [_tensor_json(tensor) for tensor in signature.inputs],
            "outputs": [_tensor_json(tensor) for tensor in signature.outputs],
            "precision": signature.precision,
            "rt_info": dict(signature.rt_info),
        }
    )


def refusal_json(refusal: FieldInvalidError) -> str:
    return json.dumps({"refusal": refusal.message, "remedy": refusal.remedy})


def parse_report(text: bytes) -> ModelSignature:
    """Return the signature. Raises FieldInvalidError (MODEL_UNREADABLE) for a refusal and for anything else."""
    try:
        report = json.loads(text)
    except ValueError as error:
        raise unreadable("reading it ended without a report", remedy=REMEDY) from error
    if not isinstance(report, dict):
        raise unreadable("reading it gave no report", remedy=REMEDY)
    if "refusal" in report:
        raise unreadable(str(report["refusal"])[:2000], remedy=str(report.get("remedy", REMEDY))[:2000])
    try:
        return _signature(report)
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable("reading it gave a broken report", remedy=REMEDY) from error


def _signature(report: dict[str, Any]) -> ModelSignature:
    leaves = {str(key): str(value) for key, value in report["rt_info"].items()}
    return ModelSignature(
        format=str(report["format"]),
        entry_path=str(report["entry_path"]),
        inputs=_tensors(report["inputs"]),
        outputs=_tensors(report["outputs"]),
        precision=str(report["precision"]),
        rt_info=MappingProxyType(leaves),
    )


def _tensors(tensors: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    if len(tensors) > limits.TENSORS_MAX:
        raise ValueError(len(tensors))
    return tuple(
        TensorSpec(name=str(t["name"]), datatype=str(t["datatype"]), shape=tuple(int(d) for d in t["shape"]))
        for t in tensors
    )


def _tensor_json(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
