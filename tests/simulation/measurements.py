"""What simulated agents measured, as the controller stores it; and the artifacts that they fetch."""

import hashlib
import math
from datetime import datetime, timedelta
from typing import Any

from controlplane.domain.catalog import Artifact, ArtifactFile
from controlplane.domain.evidence import EvidenceBatch, LatencySketch, MetricWindow, ShadowWindow
from controlplane.domain.ids import AgentId
from tests.simulation.agent import Compared, Counted, Sealed
from tests.simulation.scenario import ARTIFACT_BYTES
from tests.support.factories import digest_of

WINDOW_SECONDS = 10.0
ACCURACY = 0.01
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)


def make_weights(name: str) -> Artifact:
    """An artifact of ARTIFACT_BYTES that shares nothing with any other."""
    chunk = hashlib.sha256(name.encode()).digest()
    file = ArtifactFile(path="weights", digest=digest_of(name), size_bytes=ARTIFACT_BYTES, chunk_digests=(chunk,))
    return Artifact(files=(file,))


def make_sketch(latency_ms: float, count: int) -> LatencySketch:
    """A sketch of so many equal latencies."""
    if not count:
        return LatencySketch(relative_accuracy=ACCURACY)
    key = math.ceil(math.log(latency_ms) / math.log(GAMMA))
    return LatencySketch(
        relative_accuracy=ACCURACY,
        first_bin_key=key,
        bin_counts=(count,),
        count=count,
        sum_ms=latency_ms * count,
        min_ms=latency_ms,
        max_ms=latency_ms,
    )


def make_evidence(agent_id: AgentId, sealed: Sealed, now: datetime) -> EvidenceBatch:
    """The batch as the controller stores it, received now."""
    return EvidenceBatch(
        agent_id=agent_id,
        batch=sealed.batch,
        receive_time=now,
        results=(),
        windows=tuple(_make_window(agent_id, sealed.batch, counted, now) for counted in sealed.windows),
        shadow_windows=tuple(_make_shadow(agent_id, sealed.batch, compared, now) for compared in sealed.shadows),
    )


def _times(now: datetime) -> dict[str, Any]:
    return {"start_time": now - timedelta(seconds=WINDOW_SECONDS), "end_time": now}


def _make_window(agent_id: AgentId, batch: int, counted: Counted, now: datetime) -> MetricWindow:
    answered = counted.inferences - counted.errors
    return MetricWindow(
        agent_id=agent_id,
        batch=batch,
        slot=counted.model_id,
        version=counted.version,
        device="CPU",
        inference_count=counted.inferences,
        error_count=counted.errors,
        refused_count=0,
        latency=make_sketch(counted.latency_ms, answered),
        confidence_histogram=(0,) * 18 + (answered // 2, answered - answered // 2),
        label_counts={"good": answered} if answered else {},
        **_times(now),
    )


def _make_shadow(agent_id: AgentId, batch: int, compared: Compared, now: datetime) -> ShadowWindow:
    return ShadowWindow(
        agent_id=agent_id,
        batch=batch,
        slot=compared.model_id,
        serving_version=compared.serving,
        candidate_version=compared.candidate,
        device="CPU",
        compared=compared.compared,
        agreed=compared.agreed,
        errors=compared.errors,
        skipped=0,
        candidate_latency=make_sketch(8.0, compared.compared),
        serving_latency=make_sketch(8.0, compared.compared),
        score_distance_histogram=(compared.compared,) + (0,) * 19,
        **_times(now),
    )
