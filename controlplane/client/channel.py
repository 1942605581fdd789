"""The connection to a controller: TLS pinned to its CA, the operator's token and a deadline on every call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import grpc
from lineside.v1 import enrollment_service_pb2, enrollment_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.config import OperatorConfig
from controlplane.client.retry import Backoff, Pacing, Repeat
from controlplane.client.status import failure_of

if TYPE_CHECKING:  # the stubs are generic, the classes are not
    Request = TypeVar("Request")
    Response = TypeVar("Response")

SERVER_NAME = "controlplane.lineside.internal"
"""Name in every controller's certificate, so that a controller may be reached at any address."""
_OPTIONS = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    # Without these a channel that met a closed port would not try again for a second.
    ("grpc.initial_reconnect_backoff_ms", int(limits.RETRY_FIRST_SECONDS * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(limits.RETRY_CAP_SECONDS * 1000)),
    ("grpc.min_reconnect_backoff_ms", limits.CONNECT_SECONDS_MAX * 1000),
)


class Connection:
    """Channels to the API listener and, from the first transfer on, to the operators' bytes listener.

    Not tied to a thread. `close` ends both; a closed connection is not used again.
    """

    def __init__(self, config: OperatorConfig, *, pacing: Pacing | None = None) -> None:
        self.pacing = pacing or Pacing()
        self._config = config
        self._credentials = grpc.ssl_channel_credentials(root_certificates=config.ca_certificate.encode())
        self._metadata = (("authorization", f"Bearer {config.token}"),)
        self.api = self._open(config.controller)
        self._bytes: grpc.Channel | None = None
        self._bytes_address = ""

    def close(self) -> None:
        """Close the channels; calls under way end as cancelled."""
        self.api.close()
        self.forget_bytes()

    def bytes_channel(self) -> grpc.Channel:
        """Return the channel to the operators' bytes listener, asking the controller where it is when not known."""
        if self._bytes is None:
            self._bytes_address = self._find_bytes()
            self._bytes = self._open(self._bytes_address)
        return self._bytes

    def forget_bytes(self) -> None:
        """Forget where the bytes listener was: a controller that started again may have it elsewhere."""
        if self._bytes is not None:
            self._bytes.close()
        self._bytes = None
        self._bytes_address = ""

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        repeat: Repeat = Repeat.SAFE,
        deadline_seconds: float = limits.CALL_SECONDS,
        retry_seconds: float | None = None,
    ) -> Response:
        """Call the API listener; repeat what may be repeated for `retry_seconds`, else CALL_RETRY_SECONDS.

        Raises ClientError.
        """
        backoff = Backoff(self.pacing, budget_seconds=retry_seconds or limits.CALL_RETRY_SECONDS)
        while True:
            try:
                return method(request, timeout=deadline_seconds, metadata=self._metadata)
            except grpc.RpcError as error:
                failure = failure_of(error, address=self._config.controller)
                if not repeat.allows(failure) or not backoff.wait():
                    raise failure from error

    def receive(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        deadline_seconds: float,
    ) -> Iterator[Response]:
        """Yield the answers of one stream, on either listener, never repeated. Raises ClientError."""
        stream = method(request, timeout=deadline_seconds, metadata=self._metadata)
        try:
            yield from stream
        except grpc.RpcError as error:
            raise failure_of(error, address=self._bytes_address or self._config.controller) from error
        finally:
            stream.cancel()

    def call_bytes(self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Call the bytes listener once. Raises ClientError."""
        try:
            return method(request, timeout=limits.CALL_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise failure_of(error, address=self._bytes_address) from error

    def send_bytes(
        self, method: grpc.StreamUnaryMultiCallable[Request, Response], requests: Iterable[Request]
    ) -> Response:
        """Send a stream to the bytes listener once. Raises ClientError."""
        try:
            return method(iter(requests), timeout=limits.WRITE_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise failure_of(error, address=self._bytes_address) from error

    def _open(self, address: str) -> grpc.Channel:
        return grpc.secure_channel(address, self._credentials, options=_OPTIONS)

    def _find_bytes(self) -> str:
        stub = enrollment_service_pb2_grpc.EnrollmentServiceStub(self.api)
        found = self.call(stub.GetEndpoints, enrollment_service_pb2.GetEndpointsRequest()).endpoints.operator_bytes
        host, _, port = found.rpartition(":")
        return f"{host or self._config.controller.rpartition(':')[0]}:{port}"
