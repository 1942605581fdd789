"""A compiled model in this process, with a pool of InferRequests: any number of threads, no copy of an input.

An InferRequest whose inference hangs leaves the pool, and comes back when it ends after all.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov

from agent import limits
from agent.app.ports import Tensor
from agent.domain.artifact import ModelSignature
from agent.domain.errors import BehindHungError, DeviceHungError, Reason, RequestError
from agent.runtime import hung
from agent.runtime.compile import matched_indices, one_line, request_count, running_count
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
        self._types = {name: compiled.inputs[index].element_type for name, index in self._inputs.items()}
        self._bf16 = frozenset(spec.name for spec in signature.outputs if spec.datatype == "BF16")
        self._optimal_requests = request_count(compiled)
        self._running_max = running_count(compiled)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._compiled = compiled
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._begun: dict[int, Any] = {}
        """InferRequests of inferences that have not ended, in the order in which OpenVINO got them."""
        self._given_up: dict[int, int] = {}
        """Numbers of inferences in `_begun` that nobody waits for any more, by their number in `hung`."""
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

    def infer(
        self,
        inputs: Mapping[str, Tensor],
        *,
        begin_seconds: Callable[[], float] | None = None,
        answer_seconds_max: float | None = None,
    ) -> Mapping[str, Tensor]:
        """As LoadedModel. Waits for a free InferRequest within a bound, then raises RequestError (QUEUE_FULL)."""
        request = self._free_request(begin_seconds)
        hangs = False
        try:
            # Tensors by index and a copy of each output by hand: half the cost of a mapping in and one out.
            held = [np.ascontiguousarray(array) for array in inputs.values()]
            for name, array in zip(inputs, held, strict=True):
                # Given its type, OpenVINO shares read-only memory too.
                tensor = ov.Tensor(array, ov.Shape(array.shape), self._types[name])
                request.set_input_tensor(self._inputs[name], tensor)
            if answer_seconds_max is None:
                request.infer(share_outputs=True)
            else:
                self._infer_within(answer_seconds_max, request, held)
            return {
                name: self._owned(name, request.get_output_tensor(index).data) for name, index in self._outputs.items()
            }
        except DeviceHungError:
            hangs = True
            raise
        except RuntimeError as error:
            raise RequestError(
                f"inference failed on {self._device}: {one_line(error)}",
                remedy="see whether other inputs succeed; the version may be wrong for this device",
                reason=Reason.INFERENCE_FAILED,
            ) from error
        finally:
            if not hangs:
                self._requests.put(request)

    def close(self) -> None:
        """Frees the device's memory now rather than at some later collection."""
        while not self._requests.empty():
            self._requests.get_nowait()
        self._compiled = None

    def _free_request(self, begin_seconds: Callable[[], float] | None) -> Any:
        if self._given_up:
            self._take_back()
        left_seconds = begin_seconds() if begin_seconds is not None and self._requests.empty() else self._wait_seconds
        wait_seconds = max(0.0, min(left_seconds, self._wait_seconds))
        try:
            return self._requests.get(timeout=wait_seconds)
        except queue.Empty as error:
            in_time = left_seconds >= self._wait_seconds
            raise RequestError(
                f"{self._device} was busy for {wait_seconds:g} s",
                remedy="send fewer requests at once" + ("" if in_time else ", or allow more time"),
                reason=Reason.QUEUE_FULL if in_time else Reason.DEADLINE_EXCEEDED,
            ) from error

    def _infer_within(self, seconds: float, request: Any, held: Sequence[Tensor]) -> None:
        """Raises RuntimeError where the inference fails; DeviceHungError where it has not ended within `seconds`, and
        BehindHungError where it has not even begun."""
        with self._lock:
            request.start_async()
            number = next(self._numbers)
            self._begun[number] = request
        ended = True
        try:
            ended = _ends(request, seconds)
        finally:
            if ended:
                del self._begun[number]
        if not ended:
            kept = hung.keep(request, held, self._compiled)
            with self._lock:
                # A copy in one step: inferences end without the lock.
                ahead = sum(each < number for each in list(self._begun))
                self._given_up[kept] = number
            raise self._hung_error(seconds, behind=ahead >= self._running_max)

    def _take_back(self) -> None:
        """InferRequests whose inference has ended after all."""
        with self._lock:
            ended = [kept for kept, number in self._given_up.items() if _has_ended(self._begun[number])]
            requests = [self._begun.pop(self._given_up.pop(kept)) for kept in ended]
        for kept, request in zip(ended, requests, strict=True):
            hung.let_go(kept)
            self._requests.put(request)

    def _hung_error(self, seconds: float, *, behind: bool) -> DeviceHungError:
        return (BehindHungError if behind else DeviceHungError)(
            f"no answer from {self._device} within {seconds:.3g} s",
            remedy="send it again: if the device is lost, another one answers",
        )

    def _owned(self, name: str, array: Tensor) -> Tensor:
        """A copy, since the InferRequest writes there again. OpenVINO calls the bits of BF16 float16."""
        owned = array.copy()
        return owned.view(np.uint16) if name in self._bf16 else owned


def _ends(request: Any, seconds: float) -> bool:
    """Whether what was started ends within `seconds`. Raises RuntimeError where it failed."""
    look_ms = max(1, round(seconds * 1000 / limits.HANG_LOOKS))
    return any(request.wait_for(look_ms) for _ in range(limits.HANG_LOOKS))


def _has_ended(request: Any) -> bool:
    try:
        return bool(request.wait_for(0))
    except RuntimeError:  # it failed, and whoever waited for it has been answered long since
        return True
