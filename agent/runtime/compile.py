"""Compiling a model for one configuration, which child and server share, and tensors by name.

Child and server must compile with the same hint, precision and streams, else the server would answer from something
that was never measured. Pinning is off in both: several agents and the line's own programs share a box, and two pinned
processes collide on the same cores at less than half the throughput.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import openvino as ov

from agent import limits
from agent.domain.artifact import TensorSpec
from agent.domain.device import Configuration, PerformanceHint
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
    """What is compiled, in which configuration, and where the compiled blob lies."""

    model: Path
    configuration: Configuration
    hint: PerformanceHint
    cache: Path


def compile_target(core: ov.Core, target: CompileTarget) -> Any:
    """The compiled model, from the cache where a blob lies there. Raises RuntimeError of OpenVINO."""
    configuration = target.configuration
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": _hint(configuration, target.hint).value,
        "CACHE_DIR": str(target.cache),
    }
    own = {member: _own_properties(core, member, configuration) for member in configuration.members}
    if configuration.device in own:
        config.update(own[configuration.device])
    else:
        config["DEVICE_PROPERTIES"] = own
    return core.compile_model(target.model, configuration.device, config)


def streams_used(compiled: Any) -> int:
    """0 where the device does not say."""
    try:
        return int(compiled.get_property("NUM_STREAMS"))
    except (RuntimeError, TypeError, ValueError):
        return 0


def _hint(configuration: Configuration, hint: PerformanceHint) -> PerformanceHint:
    """Only AUTO knows what cumulative means."""
    cumulative = hint is PerformanceHint.CUMULATIVE_THROUGHPUT and not configuration.device.startswith("AUTO:")
    return PerformanceHint.THROUGHPUT if cumulative else hint


def _own_properties(core: ov.Core, device: str, configuration: Configuration) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if "ENABLE_CPU_PINNING" in core.get_property(device, "SUPPORTED_PROPERTIES"):
        own["ENABLE_CPU_PINNING"] = False
    if configuration.precision:
        own["INFERENCE_PRECISION_HINT"] = configuration.precision
    if configuration.streams:
        own["NUM_STREAMS"] = str(configuration.streams)
    return own


def request_count(compiled: Any) -> int:
    """InferRequests that keep the device busy, within our bound: as many as run at once, and as many again. Those wait
    within OpenVINO, so that a stream that is done goes on at once and not when a thread of ours has the interpreter."""
    return max(1, min(2 * running_count(compiled), limits.INFER_REQUESTS_MAX))


def running_count(compiled: Any) -> int:
    """Inferences that run at once; what is begun beyond them waits within OpenVINO, first come, first served."""
    return int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))


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
