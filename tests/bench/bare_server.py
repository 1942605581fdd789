"""The least that a Python program needs to answer ModelInfer: grpcio, OpenVINO, and nothing in between.

No request is checked, no two take turns, nothing is counted or kept. What an agent loses against this is its own; what
this loses against benchmark_app is what gRPC in Python costs on the box. Prints its address once it listens.
"""

import argparse
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import openvino as ov
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.bench.serving_models import HINT, PRECISION

_THREADS = 16
_BYTES_MAX = 64 << 20


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Raw tensors in, raw tensors out; as many InferRequests again as run at once, as the agent has them."""

    def __init__(self, path: Path) -> None:
        options = {"PERFORMANCE_HINT": HINT, "INFERENCE_PRECISION_HINT": PRECISION, "ENABLE_CPU_PINNING": False}
        compiled = ov.Core().compile_model(path, "CPU", options)
        self._types = [port.element_type for port in compiled.inputs]
        self._names = [port.any_name for port in compiled.outputs]
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
            self._free.put(compiled.create_infer_request())

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        free = self._free.get()
        try:
            for index, (tensor, content) in enumerate(zip(request.inputs, request.raw_input_contents, strict=True)):
                kind, shape = self._types[index], tuple(tensor.shape)
                array = np.frombuffer(content, kind.to_dtype()).reshape(shape)
                free.set_input_tensor(index, ov.Tensor(array, ov.Shape(shape), kind))
            free.infer(share_outputs=True)
            outputs = [free.get_output_tensor(index).data.copy() for index in range(len(self._names))]
        finally:
            self._free.put(free)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name, array in zip(self._names, outputs, strict=True):
            answer.outputs.add(name=name, datatype="FP32", shape=array.shape)
            answer.raw_output_contents.append(array.tobytes())
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    options = [("grpc.max_receive_message_length", _BYTES_MAX), ("grpc.max_send_message_length", _BYTES_MAX)]
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    servicer = Servicer(parser.parse_args().model)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
