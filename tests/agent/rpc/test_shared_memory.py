"""Triton's system shared-memory extension: unmodified tritonclient, and everything that may not be done with it."""

import asyncio
import os
import random
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.utils.shared_memory as client_memory
from tritonclient.grpc import service_pb2, service_pb2_grpc

from agent.domain.errors import Reason, RequestError
from agent.rpc.shared_memory import Region, RegionRange, SharedMemory
from tests.support.inference_servers import InferenceServers, running_servers
from tests.support.serving import FakeModel, desired_slot

IMAGES = np.arange(6, dtype=np.float32).reshape(2, 3)
SCORES = [[0.25, 0.75]] * 2


@pytest.fixture
def prefix() -> Iterator[str]:
    """A prefix of its own for each test, whose regions are removed after it."""
    name = f"lineside_{secrets.token_hex(6)}_"
    yield name
    for path in Path("/dev/shm").glob(f"{name}*"):
        path.unlink()


@pytest.fixture
async def servers(prefix: str) -> AsyncIterator[InferenceServers]:
    async with running_servers(shared_memory=prefix) as running:
        running.serving.swap(desired_slot(3), FakeModel(score=0.75))
        yield running


@pytest.mark.parametrize("module", [triton_grpc, triton_http])
async def test_unmodified_clients_hand_tensors_over_in_shared_memory(
    servers: InferenceServers, prefix: str, module: Any
) -> None:
    await asyncio.to_thread(hand_over, servers, prefix, module)
    assert len(servers.results.results) == 2, "the refused one left no result"


def hand_over(servers: InferenceServers, prefix: str, module: Any) -> None:
    url = servers.grpc_url if module is triton_grpc else servers.http_url
    handle = client_memory.create_shared_memory_region("in", f"/{prefix}in", IMAGES.nbytes)
    answer_handle = client_memory.create_shared_memory_region("out", f"/{prefix}out", 64)
    client_memory.set_shared_memory_region(handle, [IMAGES])
    with module.InferenceServerClient(url) as client:
        assert "system_shared_memory" in client.get_server_metadata(**_json(module))["extensions"]
        client.register_system_shared_memory("in", f"/{prefix}in", IMAGES.nbytes)
        client.register_system_shared_memory("out", f"/{prefix}out", 64)
        given = module.InferInput("x", [2, 3], "FP32")
        given.set_shared_memory("in", IMAGES.nbytes)
        wanted = module.InferRequestedOutput("scores")
        wanted.set_shared_memory("out", 16, 32)
        answer = client.infer("cells", [given], outputs=[wanted])
        output = answer.get_output("scores")
        assert (output["shape"] if module is triton_http else list(output.shape)) == [2, 2]
        assert client_memory.get_contents_as_numpy(answer_handle, np.float32, [2, 2], 32).tolist() == SCORES
        assert len(client.get_system_shared_memory_status(**_json(module))) >= 1
        client.unregister_system_shared_memory("in")
        client.unregister_system_shared_memory()
        with pytest.raises(Exception, match="not registered"):
            client.infer("cells", [given], outputs=[wanted])
    client_memory.destroy_shared_memory_region(handle)
    client_memory.destroy_shared_memory_region(answer_handle)


def _json(module: Any) -> dict[str, bool]:
    return {"as_json": True} if module is triton_grpc else {}


def test_an_output_in_shared_memory_has_an_empty_entry_in_the_message(servers: InferenceServers, prefix: str) -> None:
    """perf_analyzer counts them, and crashes else."""
    make_file(prefix + "out", 64)
    with grpc.insecure_channel(servers.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.SystemSharedMemoryRegister(
            service_pb2.SystemSharedMemoryRegisterRequest(name="out", key=f"/{prefix}out", byte_size=64)
        )
        request = service_pb2.ModelInferRequest(model_name="cells", raw_input_contents=[IMAGES.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[2, 3])
        output = request.outputs.add(name="scores")
        output.parameters["shared_memory_region"].string_param = "out"
        output.parameters["shared_memory_byte_size"].int64_param = 16
        answer = stub.ModelInfer(request)
    assert list(answer.raw_output_contents) == [b""]
    assert list(answer.outputs[0].shape) == [2, 2]


def test_off_unless_a_prefix_is_named() -> None:
    off = SharedMemory("")
    for act in (
        lambda: off.register(Region(name="a", key="/lineside_a", offset=0, byte_size=1)),
        lambda: off.unregister(""),
        lambda: off.regions(""),
        lambda: off.read(RegionRange(region="a", offset=0, byte_size=1), field="inputs"),
    ):
        with pytest.raises(RequestError) as refused:
            act()
        assert refused.value.reason is Reason.SHARED_MEMORY_OFF


def make_file(name: str, size: int) -> Path:
    path = Path("/dev/shm") / name
    path.write_bytes(bytes(size))
    return path


@pytest.mark.parametrize(
    ("key", "range_", "field"),
    [
        ("/other", (0, 1), "key"),
        ("other", (0, 1), "key"),
        ("", (0, 1), "key"),
        ("/{prefix}../../etc/passwd", (0, 1), "key"),
        ("/{prefix}a/b", (0, 1), "key"),
        ("/{prefix}a\0", (0, 1), "key"),
        ("/{prefix}missing", (0, 1), "key"),
        ("/{prefix}link", (0, 1), "key"),
        ("/{prefix}folder", (0, 1), "key"),
        ("/{prefix}a", (0, 0), "byte_size"),
        ("/{prefix}a", (0, 101), "byte_size"),
        ("/{prefix}a", (100, 1), "byte_size"),
        ("/{prefix}a", (-1, 1), "byte_size"),
        ("/{prefix}a", (2**63, 1), "byte_size"),
        ("/{prefix}a", (0, 2**40), "byte_size"),
    ],
)
def test_only_allowed_keys_and_ranges_are_registered(
    prefix: str, tmp_path: Path, key: str, range_: tuple[int, int], field: str
) -> None:
    path = make_file(prefix + "a", 100)
    link, folder = path.with_name(prefix + "link"), path.with_name(prefix + "folder")
    (tmp_path / "secret").write_bytes(b"secret")
    link.symlink_to(tmp_path / "secret")
    folder.mkdir()
    shared = SharedMemory(prefix)
    try:
        with pytest.raises(RequestError) as refused:
            shared.register(Region(name="a", key=key.format(prefix=prefix), offset=range_[0], byte_size=range_[1]))
        assert (refused.value.field, bool(refused.value.remedy)) == (field, True)
        assert shared.regions("") == ()
    finally:
        folder.rmdir()


def test_several_prefixes_may_be_allowed(prefix: str) -> None:
    make_file(prefix + "a", 8)
    shared = SharedMemory(f"other_,{prefix}")
    shared.register(Region(name="a", key=f"/{prefix}a", offset=0, byte_size=8))
    with pytest.raises(RequestError, match=f"/other_ or /{prefix}"):
        shared.register(Region(name="b", key="/another", offset=0, byte_size=8))
    shared.close()
    for wrong in (",", "a,", "a,b/c", "a, b"):
        with pytest.raises(RequestError, match="no beginning of a key"):
            SharedMemory(wrong)


def test_a_name_is_registered_once_and_regions_are_bounded(prefix: str) -> None:
    make_file(prefix + "a", 8)
    shared = SharedMemory(prefix, regions_max=2)
    region = Region(name="a", key=f"/{prefix}a", offset=0, byte_size=8)
    shared.register(region)
    with pytest.raises(RequestError) as taken:
        shared.register(region)
    assert taken.value.reason is Reason.REGION_EXISTS
    shared.register(Region(name="b", key=f"/{prefix}a", offset=4, byte_size=4))
    with pytest.raises(RequestError) as full:
        shared.register(Region(name="c", key=f"/{prefix}a", offset=0, byte_size=1))
    assert full.value.reason is Reason.QUEUE_FULL
    with pytest.raises(RequestError) as missing:
        shared.regions("c")
    assert missing.value.reason is Reason.REGION_NOT_FOUND
    shared.close()


def test_no_range_reaches_beyond_its_region(prefix: str) -> None:
    """Seeded: the bytes of a range, or a refusal, and nothing outside is ever written."""
    path = make_file(prefix + "a", 64)
    content = bytes(range(64))
    path.write_bytes(content)
    shared = SharedMemory(prefix)
    shared.register(Region(name="a", key=f"/{prefix}a", offset=16, byte_size=32))
    rng = random.Random(0)
    refused = 0
    for _ in range(4000):
        wanted = RegionRange(
            region=rng.choice(["a", "a", "a", "b", ""]),
            offset=rng.choice([rng.randint(-4, 40), 2**63, 2**64 + 1]),
            byte_size=rng.choice([rng.randint(-4, 40), 2**62, 2**64]),
        )
        try:
            got = bytes(shared.read(wanted, field="inputs"))
            assert got == content[16 + wanted.offset : 16 + wanted.offset + wanted.byte_size]
            assert 0 <= wanted.offset <= wanted.offset + wanted.byte_size <= 32
            shared.write(wanted, memoryview(got), field="outputs")
        except RequestError:
            refused += 1
    assert path.read_bytes() == content
    assert 0 < refused < 4000
    shared.close()


def test_a_region_that_is_shrunk_is_an_error_and_not_a_crash(prefix: str) -> None:
    path = make_file(prefix + "a", 4096)
    shared = SharedMemory(prefix)
    shared.register(Region(name="a", key=f"/{prefix}a", offset=0, byte_size=4096))
    os.truncate(path, 10)
    wanted = RegionRange(region="a", offset=0, byte_size=4096)
    with pytest.raises(RequestError, match="ends after 10 of 4096 bytes"):
        shared.read(wanted, field="inputs")
    with pytest.raises(RequestError, match="shrunk"):
        shared.write(wanted, memoryview(bytes(4096)), field="outputs")
    assert path.stat().st_size == 10
    shared.close()


def test_files_are_closed_with_their_last_request(prefix: str) -> None:
    make_file(prefix + "a", 1 << 20)
    shared = SharedMemory(prefix)
    wanted = RegionRange(region="a", offset=0, byte_size=1 << 20)
    before = len(os.listdir("/proc/self/fd"))
    refused: list[RequestError] = []

    def read() -> None:
        for _ in range(50):
            try:
                shared.read(wanted, field="inputs")
            except RequestError as error:
                refused.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(50):
        shared.register(Region(name="a", key=f"/{prefix}a", offset=0, byte_size=1 << 20))
        shared.unregister("a")
    for reader in readers:
        reader.join()
    assert all("not registered" in str(error) for error in refused)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_applications_reach_the_agent_through_unix_sockets(tmp_path: Path) -> None:
    async with running_servers(socket_folder=tmp_path) as running:
        running.serving.swap(desired_slot(3), FakeModel())
        with triton_grpc.InferenceServerClient(f"unix:{tmp_path / 'grpc'}") as client:
            assert client.is_model_ready("cells")
        assert (tmp_path / "http").is_socket()
