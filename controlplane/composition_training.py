"""Training put together: the runner of this machine, the trainers of its configuration, and who uses them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import grpc
from lineside.v1 import training_service_pb2_grpc

from controlplane.app.ports import BlobStore, Clock, IdSource, ModelInspector, Store
from controlplane.app.ports_datasets import DatasetFolder
from controlplane.app.training import Training
from controlplane.app.training_ticks import TrainingTicks
from controlplane.config import Settings
from controlplane.rpc.training import TrainingServicer
from controlplane.training.configuration import load_trainers
from controlplane.training.local_runner import LocalRunner

Registration = tuple[str, Callable[[grpc.aio.Server], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingParts:
    """What the control process trains with."""

    training: Training
    ticks: TrainingTicks
    """For the jobs: behind the fence."""


def compose_training(
    settings: Settings,
    *,
    store: Store,
    fenced: Store,
    blobs: BlobStore,
    datasets: DatasetFolder,
    inspector: ModelInspector,
    clock: Clock,
    ids: IdSource,
) -> TrainingParts:
    """Put training together. Raises FieldInvalidError for a configuration of trainers that cannot be right."""
    trainers = load_trainers(settings.trainers_file)
    runner = LocalRunner(
        settings.training_dir, name=_runner_name(settings.training_dir, ids), protected=_protected(settings)
    )
    return TrainingParts(
        training=Training(store=store, blobs=blobs, clock=clock, ids=ids, runner=runner, trainers=trainers),
        ticks=TrainingTicks(
            store=fenced,
            blobs=blobs,
            datasets=datasets,
            inspector=inspector,
            runner=runner,
            trainers=trainers,
            clock=clock,
            ids=ids,
            workspace=settings.work_dir,
        ),
    )


def training_services(parts: TrainingParts) -> tuple[Registration, ...]:
    """What operators reach on the API listener."""
    runs = TrainingServicer(parts.training)
    return (
        (
            "lineside.v1.TrainingService",
            lambda to: training_service_pb2_grpc.add_TrainingServiceServicer_to_server(runs, to),
        ),
    )


def _runner_name(folder: Path, ids: IdSource) -> str:
    """Of the runner whose jobs lie in the folder: the same in every run of the controller."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "runner"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(ids.short_id())
        partial.replace(path)
    return path.read_text()


def _protected(settings: Settings) -> list[Path]:
    """What no trainer may read: keys, the database, the object store."""
    places = [settings.dir]
    for url in (settings.database_url, settings.artifact_url):
        parts = urlsplit(url)
        if parts.scheme in {"file", "sqlite"}:
            places.append(Path(unquote(parts.path)))
    return places
