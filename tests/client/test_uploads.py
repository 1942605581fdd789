"""Uploads go on where they stopped, whatever broke them, and what is held is not sent again."""

import os
from pathlib import Path

import grpc
import pytest

from controlplane.client import ApiError, Client, InvalidInputError, Progress, Stage, UnreachableError, limits
from controlplane.client.models import Models
from tests.client.fake_controller import FakeController, Refusal
from tests.client.stepped_time import SteppedTime

SIZE_BYTES = 4 * limits.CHUNK_BYTES + 123


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "solar.xml"
    path.write_bytes(b"<net/>")
    (tmp_path / "solar.bin").write_bytes(os.urandom(SIZE_BYTES))
    return path


def held(fake: FakeController) -> list[int]:
    return sorted(len(blob) for blob in fake.blobs.values())


def test_publishing_sends_every_byte_once(fake: FakeController, client: Client, model: Path) -> None:
    version = client.models.publish("solar", model, notes="first")
    assert version.name == "models/solar/versions/1"
    assert version.notes == "first"
    assert [file.path for file in version.artifact.files] == ["solar.bin", "solar.xml"]
    assert held(fake) == [6, SIZE_BYTES]
    assert fake.received_bytes == SIZE_BYTES + 6
    assert fake.requests("PublishModelVersion")[0].request_id


def test_the_same_bytes_are_not_sent_again(fake: FakeController, client: Client, model: Path) -> None:
    first = client.models.publish("solar", model)
    sent = fake.received_bytes
    assert client.models.publish("solar", model).name == first.name
    assert fake.received_bytes == sent


def test_a_broken_stream_goes_on_where_it_stopped(fake: FakeController, client: Client, model: Path) -> None:
    fake.break_upload_after.extend([2, 1])
    client.models.publish("solar", model)
    assert held(fake) == [6, SIZE_BYTES]
    assert fake.received_bytes == SIZE_BYTES + 6
    assert len(fake.requests("WriteUpload")) == 4


def test_another_process_goes_on_too(fake: FakeController, client: Client, model: Path, time: SteppedTime) -> None:
    fake.break_upload_after.append(3)
    fake.refusals["CreateUpload"].append(Refusal(code=grpc.StatusCode.UNAVAILABLE))
    time.on_sleep = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        client.models.publish("solar", model)
    with pytest.raises(KeyboardInterrupt):
        client.models.publish("solar", model)
    assert fake.received_bytes == 3 * limits.CHUNK_BYTES
    with Client(fake.config) as later:
        later.models.publish("solar", model)
    assert fake.received_bytes == SIZE_BYTES + 6


def test_a_bytes_process_that_came_back_elsewhere_is_found(
    fake: FakeController, client: Client, model: Path, time: SteppedTime
) -> None:
    fake.break_upload_after.append(2)
    time.on_sleep = fake.move_bytes
    client.models.publish("solar", model)
    assert held(fake) == [6, SIZE_BYTES]
    assert fake.received_bytes == SIZE_BYTES + 6


def test_another_writer_ahead_of_us_is_no_failure(fake: FakeController, client: Client, model: Path) -> None:
    content = model.with_suffix(".bin").read_bytes()
    fake.refusals["WriteUpload"].append(
        Refusal(code=grpc.StatusCode.FAILED_PRECONDITION, reason="UPLOAD_OFFSET", message="1 byte is held")
    )
    client.models.publish("solar", model)
    assert bytes(max(fake.blobs.values(), key=len)) == content


def test_without_progress_an_upload_ends_in_time(
    fake: FakeController, client: Client, model: Path, time: SteppedTime
) -> None:
    fake.refusals["WriteUpload"].extend([Refusal(code=grpc.StatusCode.UNAVAILABLE)] * 10_000)
    with pytest.raises(UnreachableError):
        client.models.publish("solar", model)
    assert time.seconds <= limits.TRANSFER_RETRY_SECONDS
    assert fake.requests("PublishModelVersion") == []


def test_a_refused_upload_is_not_repeated(fake: FakeController, client: Client, model: Path) -> None:
    fake.refusals["WriteUpload"].append(
        Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="STORAGE_FULL", message="full", remedy="free space")
    )
    with pytest.raises(ApiError) as caught:
        client.models.publish("solar", model)
    assert caught.value.reason == "STORAGE_FULL"
    assert len(fake.requests("WriteUpload")) == 1


def test_a_file_that_changes_meanwhile_is_refused(
    fake: FakeController, client: Client, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Models._upload

    def change_first(*arguments: object) -> None:
        model.with_suffix(".bin").write_bytes(bytes(SIZE_BYTES))
        upload(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Models, "_upload", change_first)
    with pytest.raises(ApiError) as caught:
        client.models.publish("solar", model)
    assert (caught.value.reason, caught.value.field) == ("DIGEST_MISMATCH", "upload.digest")
    assert fake.requests("PublishModelVersion") == []


def test_a_file_that_vanishes_meanwhile_is_named(
    fake: FakeController, client: Client, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Models._upload

    def remove_first(*arguments: object) -> None:
        model.with_suffix(".bin").unlink()
        upload(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Models, "_upload", remove_first)
    with pytest.raises(InvalidInputError, match=r"solar\.bin"):
        client.models.publish("solar", model)


def test_an_empty_file_is_uploaded_too(fake: FakeController, client: Client, model: Path) -> None:
    model.with_suffix(".bin").write_bytes(b"")
    client.models.publish("solar", model)
    assert held(fake) == [0, 6]


def test_progress_ends_with_everything(fake: FakeController, client: Client, model: Path) -> None:
    told: list[Progress] = []
    client.models.publish("solar", model, progress=told.append)
    last = {progress.stage: progress for progress in told}
    assert list(last) == [Stage.HASH, Stage.UPLOAD, Stage.INSPECT]
    assert {progress.done_bytes for progress in last.values()} == {SIZE_BYTES + 6}
    assert {progress.total_bytes for progress in told} == {SIZE_BYTES + 6}


def test_publishing_survives_a_controller_that_goes_away_at_the_end(
    fake: FakeController, client: Client, model: Path
) -> None:
    fake.refusals["PublishModelVersion"].extend([Refusal(code=grpc.StatusCode.UNAVAILABLE)] * 8)
    assert client.models.publish("solar", model).number == 1
    assert len({request.request_id for request in fake.requests("PublishModelVersion")}) == 1


def test_progress_renews_the_time_that_an_upload_has(
    fake: FakeController, client: Client, model: Path, time: SteppedTime
) -> None:
    fake.break_upload_after.extend([1, 1, 1])

    def outage() -> None:
        time.seconds += 0.9 * limits.TRANSFER_RETRY_SECONDS

    time.on_sleep = outage
    client.models.publish("solar", model)
    assert time.seconds > 2 * limits.TRANSFER_RETRY_SECONDS
    assert fake.received_bytes == SIZE_BYTES + 6
