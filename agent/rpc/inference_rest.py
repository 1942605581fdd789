"""The Open Inference Protocol over REST, on the agent's event loop; parsing and inference run in threads of its own."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from agent import limits
from agent.app.served import ServedModel
from agent.app.serving import Serving
from agent.domain.errors import AgentError, Reason, RequestError
from agent.rpc import inference_documents as documents
from agent.rpc.inference_address import split_address
from agent.rpc.inference_convert import parse_version
from agent.rpc.inference_errors import HTTP_CODES, internal_text
from agent.rpc.inference_grpc import answer_call
from agent.rpc.inference_json import HEADER_LENGTH, answer_to_body, call_from_body, index_of_ready, region_from_body
from agent.rpc.inference_unserved import Unserved, cuda_region_not_found, unserved
from agent.rpc.shared_memory import SharedMemory

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class InferenceRest:
    """Handlers over one Serving."""

    def __init__(self, serving: Serving, shared: SharedMemory, *, workers: int, calls_max: int) -> None:
        self._serving = serving
        self._shared = shared
        self._calls_max = calls_max
        self._calls = 0
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="inference-rest")

    def routes(self) -> list[web.RouteDef]:
        found = [
            web.get("/v2", self._server),
            web.get("/v2/health/live", self._live),
            web.get("/v2/health/ready", self._ready),
            web.get("/v2/models/stats", self._all_statistics),
            web.post("/v2/repository/index", self._index),
            web.get("/v2/systemsharedmemory/status", self._regions),
            web.get("/v2/systemsharedmemory/region/{region}/status", self._regions),
            web.post("/v2/systemsharedmemory/region/{region}/register", self._register),
            web.post("/v2/systemsharedmemory/unregister", self._unregister),
            web.post("/v2/systemsharedmemory/region/{region}/unregister", self._unregister),
        ]
        found += _unserved_routes()
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [
                web.get(model, self._metadata),
                web.get(f"{model}/ready", self._model_ready),
                web.get(f"{model}/config", self._config),
                web.get(f"{model}/stats", self._statistics),
                web.post(f"{model}/infer", self._infer),
            ]
        return found

    async def close(self, _: web.Application) -> None:
        """Waits for the inferences under way."""
        await asyncio.to_thread(self._executor.shutdown)

    async def _server(self, _: web.Request) -> web.Response:
        return web.json_response(documents.server_document(shared_memory=self._shared.enabled))

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _: web.Request) -> web.Response:
        ready = self._serving.ready
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def _model_ready(self, request: web.Request) -> web.Response:
        model = self._model(request)
        return web.json_response({"name": model.slot, "ready": True})

    async def _metadata(self, request: web.Request) -> web.Response:
        model = self._model(request)
        return web.json_response({**documents.metadata_document(model), "rt_info": documents.rt_info_document(model)})

    async def _config(self, request: web.Request) -> web.Response:
        return web.json_response(documents.config_document(self._model(request)))

    async def _statistics(self, request: web.Request) -> web.Response:
        found = self._serving.statistics(request.match_info["model"], _version(request))
        return web.json_response({"model_stats": [documents.statistics_document(each) for each in found]})

    async def _all_statistics(self, _: web.Request) -> web.Response:
        found = self._serving.statistics()
        return web.json_response({"model_stats": [documents.statistics_document(each) for each in found]})

    async def _index(self, request: web.Request) -> web.Response:
        ready = index_of_ready(_unpacked(request, await request.read()))
        return web.json_response(
            documents.index_documents(self._serving.models(), self._serving.pending(), ready=ready)
        )

    async def _regions(self, request: web.Request) -> web.Response:
        found = self._shared.regions(request.match_info.get("region", ""))
        return web.json_response([documents.region_document(region) for region in found])

    async def _register(self, request: web.Request) -> web.Response:
        body = _unpacked(request, await request.read())
        self._shared.register(region_from_body(body, name=request.match_info["region"]))
        return web.json_response({})

    async def _unregister(self, request: web.Request) -> web.Response:
        self._shared.unregister(request.match_info.get("region", ""))
        return web.json_response({})

    async def _infer(self, request: web.Request) -> web.Response:
        if self._calls >= self._calls_max:
            self._serving.count_refused(request.match_info["model"], Reason.QUEUE_FULL)
            raise RequestError(
                f"{self._calls} calls are under way", remedy="send fewer at once", reason=Reason.QUEUE_FULL
            )
        self._calls += 1
        try:
            body = await request.read()
            # In the caller's context, which may name the trace that the request is part of.
            answer = copy_context().run
            answered = asyncio.get_running_loop().run_in_executor(self._executor, answer, self._answer, request, body)
            content, header_length = await answered
        finally:
            self._calls -= 1
        return _response(request, content, header_length)

    def _answer(self, request: web.Request, packed: bytes) -> tuple[bytes, int | None]:
        slot, version = request.match_info["model"], request.match_info.get("version", "")
        try:
            body = _unpacked(request, packed)
            length = request.headers.get(HEADER_LENGTH)
            rest = call_from_body(body, length, slot=slot, version=version, shared=self._shared)
        except RequestError:
            self._serving.count_refused(slot)
            raise
        return answer_to_body(answer_call(self._serving, rest.call, peer=_peer(request)), rest, self._shared)

    def _model(self, request: web.Request) -> ServedModel:
        return self._serving.model(request.match_info["model"], _version(request))


def _peer(request: web.Request) -> str:
    """The connection. Unix sockets have no names: theirs is the transport's own."""
    transport = request.transport
    name = transport.get_extra_info("peername") if transport is not None else None
    return f"http:{name or id(transport)}"


def _unserved_routes() -> list[web.RouteDef]:
    """Of CUDA memory there is none, which may be asked for; what else is not served is refused."""

    def refuse(what: Unserved) -> _Handler:
        async def handler(_: web.Request) -> web.Response:
            raise unserved(what)

        return handler

    async def no_regions(_: web.Request) -> web.Response:
        return web.json_response([])

    async def no_region(request: web.Request) -> web.Response:
        raise cuda_region_not_found(request.match_info["region"])

    async def nothing(_: web.Request) -> web.Response:
        return web.json_response({})

    cuda = "/v2/cudasharedmemory"
    return [
        web.get(f"{cuda}/status", no_regions),
        web.get(f"{cuda}/region/{{region}}/status", no_region),
        web.post(f"{cuda}/unregister", nothing),
        web.post(f"{cuda}/region/{{region}}/unregister", nothing),
        web.post(f"{cuda}/region/{{region}}/register", refuse(Unserved.CUDA)),
        web.post("/v2/repository/models/{model}/load", refuse(Unserved.LOADING)),
        web.post("/v2/repository/models/{model}/unload", refuse(Unserved.LOADING)),
        web.route("*", "/v2/trace/setting", refuse(Unserved.TRACING)),
        web.route("*", "/v2/models/{model}/trace/setting", refuse(Unserved.TRACING)),
        web.route("*", "/v2/logging", refuse(Unserved.LOGGING)),
    ]


def _unpacked(request: web.Request, body: bytes) -> bytes:
    """Raises RequestError, web.HTTPException. The HTTP server would log a broken body as its own fault."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    match encoding:
        case "identity":
            return body
        case "gzip":
            unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        case "deflate":  # with zlib's header, as it should be, or bare, as some send it
            unpacker = zlib.decompressobj(zlib.MAX_WBITS if body[:1] and body[0] & 15 == 8 else -zlib.MAX_WBITS)
        case _:
            raise web.HTTPUnsupportedMediaType(reason="Content-Encoding must be gzip or deflate")
    size_max = request.client_max_size
    try:
        content = unpacker.decompress(body, size_max + 1)
    except zlib.error as error:
        raise _broken(encoding) from error
    if len(content) > size_max:
        raise web.HTTPRequestEntityTooLarge(max_size=size_max, actual_size=len(content))
    if not unpacker.eof or unpacker.unused_data:
        raise _broken(encoding)
    return content


def _broken(encoding: str) -> RequestError:
    return RequestError(f"not packed as {encoding}", field="body", remedy="send what Content-Encoding says")


async def start_rest_server(
    serving: Serving,
    address: str,
    *,
    shared: SharedMemory,
    socket: Path | None = None,
    middlewares: Sequence[Middleware] = (),
    workers: int = limits.INFERENCE_WORKERS,
    calls_max: int = limits.INFERENCE_CALLS_MAX,
    message_bytes_max: int = limits.INFERENCE_MESSAGE_BYTES_MAX,
) -> web.AppRunner:
    """A started server, which also listens on the Unix socket; `runner.addresses` has its port first,
    `runner.cleanup()` stops it. Raises RequestError for a bad address, OSError where the address is taken."""
    host, port = split_address(address)
    rest = InferenceRest(serving, shared, workers=workers, calls_max=calls_max)
    application = web.Application(middlewares=[*middlewares, _refusals], client_max_size=message_bytes_max)
    application.add_routes(rest.routes())
    application.on_cleanup.append(rest.close)
    runner = web.AppRunner(
        application, access_log=None, auto_decompress=False, shutdown_timeout=limits.SERVING_STOP_SECONDS_MAX
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        if socket is not None:
            await web.UnixSite(runner, str(socket)).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


@web.middleware
async def _refusals(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every refusal is `{"error": ...}`, also those of the HTTP server itself."""
    try:
        return await handler(request)
    except AgentError as error:
        return _refusal(HTTP_CODES.get(error.reason, 500), str(error), error)
    except web.HTTPRequestEntityTooLarge:
        return _refusal(413, f"body: too large; send at most {request.client_max_size} bytes")
    except web.HTTPException as error:
        return _refusal(error.status, f"{request.method} {request.path}: {error.reason}")
    except Exception as error:  # noqa: BLE001 - the last line of defence: logged with an id that the client is told
        return _refusal(500, internal_text(error))


def _refusal(status: int, text: str, error: AgentError | None = None) -> web.Response:
    details = {"reason": error.reason.value, "field": error.field, "remedy": error.remedy} if error else {}
    return web.json_response({"error": text, **details}, status=status)


def _version(request: web.Request) -> int | None:
    return parse_version(request.match_info.get("version", ""))


def _response(request: web.Request, content: bytes, header_length: int | None) -> web.Response:
    headers = {} if header_length is None else {HEADER_LENGTH: str(header_length)}
    kind = "application/json" if header_length is None else "application/octet-stream"
    response = web.Response(body=content, headers=headers, content_type=kind)
    if request.headers.get("Accept-Encoding"):
        response.enable_compression()
    return response
