"""One HTTP/2 connection with one gRPC stream on it, as bytes: what a load generator can hold 10,000 of in a process.

It does what a gRPC client has to: gRPC framing, flow control both ways, and answers to SETTINGS, PING and GOAWAY (h2
gives those). TLS is the event loop's.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

_PREFIX = struct.Struct(">BI")
"""Of each gRPC message: whether it is compressed, and its length."""
_CONFIG = H2Configuration(
    client_side=True,
    header_encoding=None,
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)
_WINDOW_BYTES = 1 << 20
_STATUS = frozenset({b"grpc-status", b"grpc-message"})


class GrpcStream(asyncio.Protocol):
    """A stream of `path`. `on_open` is called once messages can be sent, `on_message` with each that comes, and
    `on_end` once, with why, when no more can come."""

    __slots__ = (
        "_authority",
        "_connection",
        "_in",
        "_on_end",
        "_on_message",
        "_on_open",
        "_out",
        "_path",
        "_transport",
    )

    def __init__(
        self,
        path: str,
        *,
        authority: str,
        on_open: Callable[["GrpcStream"], None],
        on_message: Callable[[bytes], None],
        on_end: Callable[["GrpcStream", str], None],
    ) -> None:
        self._path, self._authority = path, authority
        self._on_open, self._on_message = on_open, on_message
        self._on_end: Callable[[GrpcStream, str], None] | None = on_end
        self._connection = H2Connection(_CONFIG)
        self._transport: asyncio.Transport | None = None
        self._in, self._out = bytearray(), bytearray()

    def send(self, message: bytes) -> None:
        """Send a message as soon as the server's window lets it."""
        self._out += _PREFIX.pack(0, len(message)) + message
        self._flush()

    def drop(self) -> None:
        """End the connection as a cut cable would, without a word of HTTP/2; `on_end` is not called."""
        self._on_end = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self._on_end is None:
            self._transport.abort()
            return
        connection = self._connection
        connection.initiate_connection()
        connection.increment_flow_control_window(_WINDOW_BYTES)
        connection.send_headers(
            1,
            [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":path", self._path.encode()),
                (b":authority", self._authority.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"lineside-bench"),
            ],
        )
        self._on_open(self)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._connection.receive_data(data)
        except ProtocolError as error:
            self._end(f"not HTTP/2: {error}")
            return
        for event in events:
            if isinstance(event, DataReceived):
                self._connection.acknowledge_received_data(event.flow_controlled_length, 1)
                self._in += event.data
                self._take_messages()
            elif isinstance(event, TrailersReceived | ResponseReceived):
                status = [f"{name!r} {value!r}" for name, value in event.headers or () if name in _STATUS]
                if status:
                    self._end(f"the server ended the stream: {', '.join(status)}")
            elif isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                self._end(type(event).__name__)
                return
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(f"connection lost: {exc}")

    def _take_messages(self) -> None:
        while len(self._in) >= _PREFIX.size:
            _, length = _PREFIX.unpack_from(self._in)
            end = _PREFIX.size + length
            if len(self._in) < end:
                return
            message = bytes(self._in[_PREFIX.size : end])
            del self._in[:end]
            self._on_message(message)

    def _flush(self) -> None:
        """Write what the windows allow, and whatever h2 has to say for itself."""
        if self._transport is None:
            return
        if self._out:
            length = min(
                len(self._out), self._connection.local_flow_control_window(1), self._connection.max_outbound_frame_size
            )
            if length > 0:
                self._connection.send_data(1, bytes(self._out[:length]))
                del self._out[:length]
        if data := self._connection.data_to_send():
            self._transport.write(data)

    def _end(self, why: str) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self, why)
            if self._transport is not None:
                self._transport.abort()
