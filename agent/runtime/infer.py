"""A compiled model in this process, with a pool of InferRequests: any number of threads, no copy of an input."""

import queue
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov

from agent import limits
from agent.app.ports import Tensor
from agent.domain.artifact import ModelSignature
from agent.domain.errors import Reason, RequestError
from agent.runtime.compile import matched_indices, one_line, request_count
from agent.runtime.measure import example_inputs


class OpenVinoModel:
    """Thread-safe until `close`, of which the caller guarantees that no infer is running."""

    def __init__(
        self,
        compiled: Any,
        *,
        device: str,
        signature: ModelSignature,
        wait_seconds: float = limits.INFERENCE_WAIT_SECONDS_MAX,
    ) -> None:
        """Infers once with every InferRequest. Raises PrepareError (LOAD_FAILED) where the model is not what the
        signature says, RuntimeError where the first inference fails."""
        self._device = device
        self._signature = signature
        self._wait_seconds = wait_seconds
        self._inputs = matched_indices(compiled.inputs, signature.inputs, "input")
        self._outputs = matched_indices(compiled.outputs, signature.outputs, "output")
        self._bf16 = frozenset(spec.name for spec in (*signature.inputs, *signature.outputs) if spec.datatype == "BF16")
        self._optimal_requests = request_count(compiled)
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()
        self._compiled = compiled
        example = example_inputs(compiled)
        for _ in range(self._optimal_requests):
            request = compiled.create_infer_request()
            request.infer(example, share_inputs=True)
            self._requests.put(request)

    @property
    def device(self) -> str:
        return self._device

    @property
    def signature(self) -> ModelSignature:
        return self._signature

    @property
    def optimal_requests(self) -> int:
        return self._optimal_requests

    def infer(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """As LoadedModel. Waits for a free InferRequest within a bound, then raises RequestError (QUEUE_FULL)."""
        try:
            request = self._requests.get(timeout=self._wait_seconds)
        except queue.Empty as error:
            raise RequestError(
                f"{self._device} was busy for {self._wait_seconds:g} s",
                remedy="send fewer requests at once",
                reason=Reason.QUEUE_FULL,
            ) from error
        try:
            outputs = request.infer(
                {self._inputs[name]: self._shared(name, array) for name, array in inputs.items()}, share_inputs=True
            )
            return {name: self._owned(name, outputs[index]) for name, index in self._outputs.items()}
        except RuntimeError as error:
            raise RequestError(
                f"inference failed on {self._device}: {one_line(error)}",
                remedy="see whether other inputs succeed; the version may be wrong for this device",
                reason=Reason.INFERENCE_FAILED,
            ) from error
        finally:
            self._requests.put(request)

    def close(self) -> None:
        """Frees the device's memory now rather than at some later collection."""
        while not self._requests.empty():
            self._requests.get_nowait()
        self._compiled = None

    def _shared(self, name: str, array: Tensor) -> Any:
        """BF16 comes as its bits; OpenVINO must be told what they are."""
        if name in self._bf16:
            return ov.Tensor(np.ascontiguousarray(array), ov.Shape(array.shape), ov.Type.bf16)
        return array

    def _owned(self, name: str, array: Tensor) -> Tensor:
        """OpenVINO has copied it already, and calls the bits of BF16 float16."""
        return array.view(np.uint16) if name in self._bf16 else array
