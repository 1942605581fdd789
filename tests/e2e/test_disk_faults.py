"""Full disks and read-only folders on real small file systems: told with a remedy, and the line goes on."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from lineside.v1 import condition_pb2, rollout_pb2, slot_pb2, upload_pb2, upload_service_pb2, upload_service_pb2_grpc

from tests.e2e.refused_line import outcome_of
from tests.support import models
from tests.support.agent_process import AgentProcess
from tests.support.controller import ControllerProcess
from tests.support.line import Line, Load, large_model, wait_until
from tests.support.small_disk import mounted, why_not
from tests.support.wire import bearer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.openvino,
    # One line for all of them, in the order in which they stand.
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "disks can be mounted"),
]

DISK_BYTES = 600 << 20
"""Above the reserves of controller and agent (256 MiB each) by more than anything here needs."""
MODEL_BYTES = 24 << 20


class DiskLine:
    """A line whose controller, and whose agent st-1, have disks of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.line = Line(folder)
        self.controller_disk = stack.enter_context(mounted(folder / "controller", size_bytes=DISK_BYTES))
        self.agent_disk = stack.enter_context(mounted(folder / "st-1", size_bytes=DISK_BYTES))
        # Last in is first out: processes end before their disks go.
        stack.callback(self.line.close)
        assert self.line.controller.init().returncode == 0
        self.line.controller.start()
        self.agent = AgentProcess(folder=folder / "st-1", name="st-1", log_path=folder / "st-1.log")
        token = self.line.controller.create_join_token(labels=["line=3"])
        assert self.agent.enroll(controller=self.line.controller.api, token=token).returncode == 0
        self.line.agents["st-1"] = self.agent
        self.agent.start()
        self.line.publish("m", models.classifier_ir(folder / "v1"))
        self.line.deploy("d", "m", 1)
        self.line.wait_serving("st-1", "m", 1)

    def condition(self, kind: str) -> condition_pb2.Condition | None:
        """As the controller shows it."""
        with self.line.client() as client:
            return next((one for one in client.agents.get("st-1").conditions if one.type == kind), None)

    def wait_delivered(self, load: Load) -> None:
        """Return when every answer of the load has come back; fail where one has come twice."""

        def delivered() -> list[str]:
            parts = [result.part_id for result in self.line.results("m") if result.part_id.startswith(load.prefix)]
            return parts if len(parts) >= len(load.answered) else []

        assert sorted(wait_until(delivered, what="every result to come")) == sorted(load.answered)

    def wait_condition(self, kind: str, state: "condition_pb2.Condition.State.ValueType") -> condition_pb2.Condition:
        def told() -> condition_pb2.Condition | None:
            found = self.condition(kind)
            return found if found is not None and found.state == state else None

        found: condition_pb2.Condition = wait_until(told, what=f"{kind} to be {state}")
        return found


FALSE = condition_pb2.Condition.STATE_FALSE
TRUE = condition_pb2.Condition.STATE_TRUE


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskLine]:
    with ExitStack() as stack:
        yield DiskLine(tmp_path_factory.mktemp("disks"), stack)


# --- the controller's disk --------------------------------------------------------------------------


def test_an_upload_that_fills_the_disk_is_told_and_goes_on_when_there_is_space(disks: DiskLine) -> None:
    content = hashlib.sha256(b"seed").digest() * (MODEL_BYTES // 32)
    digest = hashlib.sha256(content).hexdigest()
    controller = disks.line.controller
    options = (("grpc.ssl_target_name_override", "controlplane.lineside.internal"),)
    credentials = grpc.ssl_channel_credentials(controller.ca_certificate)
    with grpc.secure_channel(controller.addresses["operator_bytes"], credentials, options) as channel:
        stub: Any = upload_service_pb2_grpc.UploadServiceStub(channel)
        metadata = bearer(controller.operator_token)

        def create() -> upload_pb2.Upload:
            wanted = upload_pb2.Upload(digest=f"sha256:{digest}", size_bytes=len(content))
            request = upload_service_pb2.CreateUploadRequest(upload=wanted)
            upload: upload_pb2.Upload = stub.CreateUpload(request, metadata=metadata, timeout=30).upload
            return upload

        def write(offset_bytes: int) -> upload_pb2.Upload:
            pieces = (
                upload_service_pb2.WriteUploadRequest(
                    name=f"uploads/{digest}", offset_bytes=offset_bytes, data=content[start : start + (1 << 20)]
                )
                for start in range(offset_bytes, len(content), 1 << 20)
            )
            upload: upload_pb2.Upload = stub.WriteUpload(pieces, metadata=metadata, timeout=30).upload
            return upload

        assert create().committed_bytes == 0
        disks.controller_disk.leave(8 << 20)
        try:
            full = outcome_of(lambda: write(0))
            again = outcome_of(create)
        finally:
            disks.controller_disk.free()
        for told in (full, again):
            assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL"), told
            assert "free space" in told.remedy
        held = create().committed_bytes
        assert 0 < held < len(content), "what is uploaded is kept"
        assert not list((controller.folder / "artifacts").rglob(digest)), "nothing is half there"
        done = write(held)
        assert done.complete
    assert not list((controller.folder / "uploads").iterdir())


def test_evidence_waits_at_the_agent_while_the_controllers_disk_is_full(disks: DiskLine) -> None:
    with Load(disks.agent.grpc_address, "m", "full") as load:
        load.wait_answers(20)
        disks.controller_disk.fill()
        try:
            load.wait_answers(400)
            wait_until(lambda: "RESOURCE_EXHAUSTED" in disks.agent.log(), what="a batch to be refused")
        finally:
            disks.controller_disk.free()
        load.wait_answers(20)
    assert not load.failures
    disks.wait_delivered(load)


# --- the agent's disk -------------------------------------------------------------------------------


def test_a_version_that_does_not_fit_fails_with_its_remedy_and_the_one_before_serves_on(disks: DiskLine) -> None:
    line = disks.line
    line.publish("m", large_model(line.folder / "v2", padding_bytes=MODEL_BYTES, bias=2.0))
    disks.agent_disk.leave((256 << 20) + (8 << 20))
    with Load(disks.agent.grpc_address, "m", "large") as load:
        try:
            with line.client() as client:
                gate = rollout_pb2.GatePolicy(on_failure=rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE)
                rollout = client.rollouts.start("d", model="m", version=2, waves=["100%"], gate=gate).name
            wait_until(
                lambda: (slot := line.slot("st-1", "m")) and slot.state == slot_pb2.ObservedSlot.STATE_FAILED,
                what="the slot to fail",
            )
            (slot,) = line.json("agents", "show", "st-1")["slots"]
            assert (slot["failure_reason"], slot["serving_version"]) == ("DISK_FULL", "models/m/versions/1")
            assert "free some disk" in slot["failure_message"]
            shown = line.lineside("agents", "show", "st-1").stdout
            assert "DISK_FULL" in shown
            assert "free some disk" in " ".join(shown.split())
            load.wait_answers(20)
        finally:
            disks.agent_disk.free()
        with line.client() as client:
            client.rollouts.retry(rollout)
        line.wait_serving("st-1", "m", 2)
        load.wait_answers(20)
        with line.client() as client:
            client.rollouts.abort(rollout)
        line.wait_serving("st-1", "m", 1)
    assert not load.failures
    disks.wait_delivered(load)


def test_inference_goes_on_while_the_agents_disk_takes_no_results(disks: DiskLine) -> None:
    def counted() -> tuple[int, int]:
        with disks.line.client() as client:
            rows = client.results.metrics("m")
        return sum(row.inference_count for row in rows), max((row.dropped_results for row in rows), default=0)

    inferences, dropped = counted()
    with Load(disks.agent.grpc_address, "m", "spool") as load:
        load.wait_answers(20)
        disks.agent_disk.fill()
        try:
            load.wait_answers(200)
            told = disks.wait_condition("SpoolWritable", FALSE)
            assert "free some disk" in told.message
            load.wait_answers(50)
        finally:
            disks.agent_disk.free()
        disks.wait_condition("SpoolWritable", TRUE)
        load.wait_answers(20)
    assert not load.failures
    wait_until(lambda: counted()[0] == inferences + len(load.answered), what="each inference to be counted once")
    kept = [result for result in disks.line.results("m") if result.part_id.startswith("spool")]
    lost = counted()[1] - dropped
    assert lost > 0
    assert len(kept) + lost == len(load.answered), "what was not kept is counted as such"


# Last: it restarts the agent.


def test_a_folder_that_becomes_read_only_stops_nothing_and_is_told(disks: DiskLine) -> None:
    line, agent = disks.line, disks.agent
    line.publish("other", models.classifier_ir(line.folder / "other"))
    wait_until(disks.agent_disk.make_read_only, what="no file to be open for writing")
    with Load(agent.grpc_address, "m", "read-only") as load:
        load.wait_answers(50)
        line.deploy("e", "other", 1)
        assert "writable" in disks.wait_condition("StateWritable", FALSE).message
        assert disks.wait_condition("SpoolWritable", FALSE).message
        wait_until(
            lambda: (slot := line.slot("st-1", "other")) and slot.state == slot_pb2.ObservedSlot.STATE_FAILED,
            what="the other slot to fail",
        )
        slot = line.slot("st-1", "other")
        assert slot is not None
        assert "writable" in slot.failure_message
        load.wait_answers(50)
    assert not load.failures
    assert agent.stop() == 0
    agent.start()
    with Load(agent.grpc_address, "m", "again", threads=1) as load:
        load.wait_answers(20)
    assert not load.failures
    assert {version for version, _ in load.answered.values()} == {"1"}
    disks.wait_condition("StateWritable", FALSE)
    assert agent.stop() == 0
    assert "Traceback" not in agent.log()
    assert "loop_failed" not in agent.log()
    disks.agent_disk.make_writable()
    agent.start()
    line.wait_serving("st-1", "m", 1)
    disks.wait_condition("StateWritable", TRUE)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_enrolment_into_a_folder_that_cannot_be_written_is_told(disks: DiskLine, tmp_path: Path, fault: str) -> None:
    with mounted(tmp_path / "box", size_bytes=1 << 20) as disk:
        if fault == "full":
            disk.fill()
        else:
            assert disk.make_read_only()
        box = AgentProcess(folder=disk.folder, name="box")
        done = box.enroll(controller=disks.line.controller.api, token=disks.line.controller.create_join_token())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "STATE_UNWRITABLE" in done.stderr
    assert ";" in done.stderr, "it says what to do"


def test_a_controller_whose_folder_cannot_be_written_says_so(tmp_path: Path) -> None:
    with mounted(tmp_path / "controller", size_bytes=64 << 20) as disk:
        controller = ControllerProcess(folder=disk.folder)
        assert controller.init().returncode == 0
        assert disk.make_read_only()
        with pytest.raises(AssertionError) as refused:
            controller.start()
    assert "Traceback" not in str(refused.value)
    assert "writable" in str(refused.value)
