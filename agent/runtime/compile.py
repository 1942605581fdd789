"""Compiling a model for one device: the one configuration that child and server share, and tensors by name.

Child and server must compile with the same hint and precision, else the server would answer from something that was
never measured. Pinning is off in both: several agents and the line's own programs share a box, and two pinned processes
collide on the same cores at less than half the throughput.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import openvino as ov

from agent import limits
from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.device import RuntimePolicy
from agent.domain.errors import PrepareError, Reason

ELEMENT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "boolean",
        "UINT8": "u8",
        "UINT16": "u16",
        "UINT32": "u32",
        "UINT64": "u64",
        "INT8": "i8",
        "INT16": "i16",
        "INT32": "i32",
        "INT64": "i64",
        "FP16": "f16",
        "BF16": "bf16",
        "FP32": "f32",
        "FP64": "f64",
    }
)
"""OpenVINO's names of the protocol's datatypes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileTarget:
    """What is compiled, for which device, and where the compiled blob lies."""

    model: Path
    device: str
    hint: str
    precision: str
    cache: Path


def target_of(
    folder: Path, signature: ModelSignature, policy: RuntimePolicy, device: str, cache: Path
) -> CompileTarget:
    """The target of an artifact's entry file under a policy."""
    return CompileTarget(
        model=folder / signature.entry_path,
        device=device,
        hint=policy.hint.value,
        precision=policy.inference_precision,
        cache=cache,
    )


def compile_target(core: ov.Core, target: CompileTarget) -> Any:
    """The compiled model, from the cache where a blob lies there. Raises RuntimeError of OpenVINO."""
    config: dict[str, Any] = {"PERFORMANCE_HINT": target.hint, "CACHE_DIR": str(target.cache)}
    supported = core.get_property(target.device, "SUPPORTED_PROPERTIES")
    if "ENABLE_CPU_PINNING" in supported:
        config["ENABLE_CPU_PINNING"] = False
    if target.precision:
        config["INFERENCE_PRECISION_HINT"] = target.precision
    return core.compile_model(target.model, target.device, config)


def request_count(compiled: Any) -> int:
    """InferRequests that keep the device busy, within our bound."""
    optimal = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    return max(1, min(optimal, limits.INFER_REQUESTS_MAX))


def matched_indices(ports: Sequence[Any], specs: Sequence[TensorSpec], kind: str) -> Mapping[str, int]:
    """Index of the model's port for each tensor of the signature, by name, else by place where the numbers agree.
    Raises PrepareError (LOAD_FAILED) when the model is not what the signature says."""
    indices: dict[str, int] = {}
    for place, spec in enumerate(specs):
        named = [index for index, port in enumerate(ports) if spec.name in port.names]
        index = named[0] if named else place if len(ports) == len(specs) else -1
        if index < 0:
            raise _unlike(f"{kind}s", f"the model has no {kind} {spec.name!r}")
        found = ports[index].element_type.get_type_name()
        if found != ELEMENT_TYPES.get(spec.datatype):
            raise _unlike(
                f"{kind}s[{spec.name}].datatype", f"the model's {found} is not the signature's {spec.datatype}"
            )
        indices[spec.name] = index
    if len(set(indices.values())) != len(specs):
        raise _unlike(f"{kind}s", f"the model's {kind}s cannot be told apart by name")
    return MappingProxyType(indices)


def one_line(error: BaseException | str) -> str:
    """OpenVINO's many lines of file names and causes as one bounded line, the cause kept."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    text = " ".join(lines) or str(error).strip() or type(error).__name__
    return text[: limits.ERROR_CHARS_MAX]


def _unlike(where: str, message: str) -> PrepareError:
    return PrepareError(
        message, field=f"signature.{where}", remedy="publish the model again", reason=Reason.LOAD_FAILED
    )
