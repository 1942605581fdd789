"""The boundary that every call passes: admission by a guard, then the servicer, then translation of refusals.

Servicers raise DomainErrors and never touch the context's status. Streaming servicers are async generators.
Cancellation passes untouched.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from controlplane.domain.errors import DomainError
from controlplane.rpc import errors
from controlplane.rpc.authentication import Context, Guard

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
# The stubs type a handler's functions for synchronous servers only; on grpc.aio they are these.
_Unary = Callable[[Any, Context], Awaitable[Any]]
_Stream = Callable[[Any, Context], AsyncGenerator[Any, None]]


class Boundary(grpc.aio.ServerInterceptor):
    """Wraps each method once. `guards` names services that have another guard than the default."""

    def __init__(self, *, guard: Guard, guards: Mapping[str, Guard]) -> None:
        self._guard = guard
        self._guards = guards
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        method = handler_call_details.method
        if wrapped := self._wrapped.get(method):
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        # Only methods that exist are kept, so that a caller's inventions take no memory.
        self._wrapped[method] = wrapped = _wrap(handler, method, self._guard_of(method))
        return wrapped

    def _guard_of(self, method: str) -> Guard:
        service = method.removeprefix("/").partition("/")[0]
        return self._guards.get(service, self._guard)


def _wrap(handler: Any, method: str, guard: Guard) -> _Handler:
    coders = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, method, guard), **coders)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(_unary(handler.stream_unary, method, guard), **coders)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, method, guard), **coders)
        case _:
            return grpc.stream_stream_rpc_method_handler(_stream(handler.stream_stream, method, guard), **coders)


def _unary(behaviour: _Unary, method: str, guard: Guard) -> _Unary:
    async def call(request: Any, context: Context) -> Any:
        try:
            await guard.admit(context)
            return await behaviour(request, context)
        except Exception as error:  # noqa: BLE001 - the boundary: everything is translated or passed on
            await _refuse(context, error, method)

    return call


def _stream(behaviour: _Stream, method: str, guard: Guard) -> _Stream:
    async def call(request: Any, context: Context) -> AsyncGenerator[Any, None]:
        try:
            await guard.admit(context)
            # Closed by hand: a cancelled call must release what its servicer holds now, not at a collection.
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 - the boundary: everything is translated or passed on
            await _refuse(context, error, method)

    return call


async def _refuse(context: Context, error: Exception, method: str) -> None:
    match error:
        case grpc.aio.BaseError():
            raise error
        case DomainError():
            await errors.abort(context, error)
        case _:
            await errors.abort_internal(context, error, method=method)
