"""Training runs, and a runner that does what a test says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from controlplane.app.ports_training import JobOutcome, JobOutput, JobReport, JobState, TrainingJob
from controlplane.domain.catalog import Artifact, ArtifactFile, ModelSignature, TensorSpec
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import DatasetId, ModelId, TrainingRunId
from controlplane.domain.training_run import Candidate, Progress, TrainingRun
from tests.support.factories import after_seconds, digest_of


def make_run(run_id: str = "r1", **changes: Any) -> TrainingRun:
    values: dict[str, Any] = {
        "id": TrainingRunId(run_id),
        "uid": f"uid-{run_id}",
        "create_time": after_seconds(0),
        "update_time": after_seconds(0),
        "model_id": ModelId("solar"),
        "base_version": 1,
        "dataset_id": DatasetId("d1"),
        "trainer": "head",
        "creator": "operators/anna",
    }
    return TrainingRun(**(values | changes))


def make_signature(**changes: Any) -> ModelSignature:
    values: dict[str, Any] = {
        "format": "ir",
        "entry_path": "model.xml",
        "inputs": (TensorSpec(name="image", datatype="UINT8", shape=(1, 4, 4, 1)),),
        "outputs": (TensorSpec(name="defect_probability", datatype="FP32", shape=(1, 1)),),
        "precision": "f32",
        "rt_info": {"model_info/labels": "ok defect"},
    }
    return ModelSignature(**(values | changes))


def make_candidate(content: bytes = b"candidate") -> Candidate:
    file = ArtifactFile(
        path="model.xml", digest=digest_of(content), size_bytes=len(content), chunk_digests=(bytes(32),)
    )
    return Candidate(artifact=Artifact(files=(file,)), signature=make_signature())


class MemoryRunner:
    """A TrainingRunner whose jobs do what the test says: passes the contract of runners.

    `starts` are the jobs that were ever started; `finish` and `lose` end one.
    """

    def __init__(self, folder: Path, *, name: str = "here") -> None:
        self.name = name
        self.starts: list[str] = []
        self.parameters: dict[str, object] = {}
        self.warnings: list[str] = []
        self._folder = folder
        self._reports: dict[str, JobReport] = {}
        self._logs: dict[str, bytes] = {}
        self._outputs: dict[str, JobOutput | FieldInvalidError] = {}

    async def start(self, job: TrainingJob) -> Sequence[str]:
        if job.id not in self._reports:
            self.starts.append(job.id)
            self._reports[job.id] = JobReport(state=JobState.RUNNING)
            self._logs[job.id] = b"started\n"
            self.parameters = json.loads((job.inputs / "parameters.json").read_text())
        return self.warnings

    async def look(self, job_id: str) -> JobReport:
        return self._reports.get(job_id, JobReport(state=JobState.LOST, message="there is no such job here"))

    async def cancel(self, job_id: str) -> None:
        if (await self.look(job_id)).state is JobState.RUNNING:
            self._reports[job_id] = JobReport(state=JobState.ENDED, outcome=JobOutcome.CANCELLED, message="cancelled")

    async def collect(self, job_id: str) -> JobOutput:
        output = self._outputs[job_id]
        if isinstance(output, FieldInvalidError):
            raise output
        return output

    async def read_log(self, job_id: str, *, offset_bytes: int, limit_bytes: int) -> bytes:
        return self._logs.get(job_id, b"")[offset_bytes : offset_bytes + limit_bytes]

    async def forget(self, job_id: str) -> None:
        if (await self.look(job_id)).state is not JobState.RUNNING:
            for kept in (self._reports, self._logs, self._outputs):
                kept.pop(job_id, None)

    async def list_jobs(self) -> Sequence[str]:
        return sorted(self._reports)

    def tell(self, job_id: str, fraction: float, message: str = "") -> None:
        """The trainer says something of itself."""
        progress = Progress(fraction=fraction, message=message)
        self._reports[job_id] = replace(self._reports[job_id], progress=progress)
        self._logs[job_id] += message.encode()

    def finish(
        self,
        job_id: str,
        content: bytes = b"candidate",
        *,
        metrics: Mapping[str, float] | None = None,
        declined: str = "",
    ) -> None:
        """The trainer leaves a model of one file."""
        model = self._folder / job_id / "model"
        model.mkdir(parents=True)
        (model / "model.xml").write_bytes(content)
        self._outputs[job_id] = JobOutput(model_folder=model, metrics=metrics or {}, declined=declined)
        self._reports[job_id] = JobReport(state=JobState.ENDED, outcome=JobOutcome.SUCCEEDED)

    def refuse(self, job_id: str, message: str) -> None:
        """The trainer ends as if all were well, and what it left is not as the contract says."""
        self.finish(job_id)
        self._outputs[job_id] = FieldInvalidError(message, field="output/model", remedy="read the contract")

    def fail(self, job_id: str, outcome: JobOutcome, message: str) -> None:
        self._reports[job_id] = JobReport(state=JobState.ENDED, outcome=outcome, message=message)

    def lose(self, job_id: str) -> None:
        self._reports[job_id] = JobReport(state=JobState.LOST, message="the machine restarted")
