"""What the servers say about themselves and their models, as documents in the Open Inference Protocol's words.

REST answers with the documents; gRPC parses them into its messages: one source for both.
"""

from importlib import metadata
from typing import Any

from agent import limits
from agent.app.served import ServedModel, Statistics
from agent.domain.artifact import TensorSpec
from agent.rpc.shared_memory import Region

SERVER_NAME = "lineside-agent"
PLATFORM = "openvino"
_EXTENSIONS = ["binary_tensor_data", "model_configuration", "parameters", "statistics"]
SHARED_MEMORY = "system_shared_memory"
_MODEL_INFO = "model_info/"

Document = dict[str, Any]


def server_document(*, shared_memory: bool) -> Document:
    extensions = [*_EXTENSIONS, SHARED_MEMORY] if shared_memory else _EXTENSIONS
    return {"name": SERVER_NAME, "version": metadata.version("lineside"), "extensions": extensions}


def region_document(region: Region) -> Document:
    """One registered region, as Triton's status has it."""
    return {"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}


def metadata_document(model: ServedModel) -> Document:
    return {
        "name": model.slot,
        "versions": [str(model.version)],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in model.signature.inputs],
        "outputs": [_tensor(spec) for spec in model.signature.outputs],
    }


def config_document(model: ServedModel) -> Document:
    """Where every tensor's first dimension is free it is the batch, which a configuration leaves out of the dims."""
    specs = (*model.signature.inputs, *model.signature.outputs)
    batched = all(spec.shape[:1] == (-1,) for spec in specs)
    return {
        "name": model.slot,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"specific": {"versions": [model.version]}},
        "max_batch_size": limits.BATCH_ITEMS_MAX if batched else 0,
        "input": [_configured(spec, batched=batched) for spec in model.signature.inputs],
        "output": [_configured(spec, batched=batched) for spec in model.signature.outputs],
        "parameters": {
            **{key: {"string_value": text} for key, text in _model_info(model).items()},
            "device": {"string_value": model.device},
        },
    }


def rt_info_document(model: ServedModel) -> Document:
    """Model API's keys as OpenVINO nests them; its remote adapter looks for them in the REST metadata."""
    return {"model_info": {key.removeprefix(_MODEL_INFO): text for key, text in _model_info(model).items()}}


def _model_info(model: ServedModel) -> dict[str, str]:
    """What the publisher said about the model: labels, thresholds, preprocessing."""
    return {key: text for key, text in sorted(model.signature.rt_info.items()) if key.startswith(_MODEL_INFO)}


def statistics_document(statistics: Statistics) -> Document:
    """Every request executes by itself, so requests are executions. `queue` is the wait for its turn."""
    count = statistics.requests
    last = statistics.last_time
    return {
        "name": statistics.model.slot,
        "version": str(statistics.model.version),
        "last_inference": round(last.timestamp() * 1e3) if last else 0,
        "inference_count": statistics.inferences,
        "execution_count": count,
        "inference_stats": {
            "success": _duration(count, statistics.total_seconds),
            "fail": _duration(statistics.failed, statistics.failed_seconds),
            "queue": _duration(count, statistics.queue_seconds),
            "compute_input": _duration(count, statistics.input_seconds),
            "compute_infer": _duration(count, statistics.infer_seconds),
            "compute_output": _duration(count, statistics.output_seconds),
            "cache_hit": _duration(0, 0.0),
            "cache_miss": _duration(0, 0.0),
        },
    }


def index_documents(models: tuple[ServedModel, ...], pending: tuple[str, ...], *, ready: bool) -> list[Document]:
    """Every model that answers and, unless only `ready` ones are wanted, every slot that is to come."""
    served = [{"name": model.slot, "version": str(model.version), "state": "READY"} for model in models]
    coming = [{"name": slot, "state": "LOADING", "reason": "its first version is being prepared"} for slot in pending]
    return served if ready else served + coming


def _tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec, *, batched: bool) -> Document:
    dims = spec.shape[1:] if batched else spec.shape
    return {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": list(dims)}


def _duration(count: int, seconds: float) -> Document:
    return {"count": count, "ns": round(seconds * 1e9)}
