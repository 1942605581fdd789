"""Rollouts with their waves, and who was given the version when."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.ids import AgentId, DeploymentId, ModelId, RolloutId
from controlplane.domain.rollout import Release, Rollout, RolloutState, Wave, WaveState
from controlplane.store.mapping.strategy import size_from_json, size_to_json, strategy_from_json, strategy_to_json
from controlplane.store.mapping.values import Row, time_from_json, time_to_json
from controlplane.store.mapping.verdict import verdict_from_json, verdict_to_json


def rollout_to_row(rollout: Rollout) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "uid": rollout.uid,
        "create_time": rollout.create_time,
        "update_time": rollout.update_time,
        "deployment_id": rollout.deployment_id,
        "model_id": rollout.model_id,
        "target_version": rollout.target_version,
        "previous_version": rollout.previous_version,
        "strategy": strategy_to_json(rollout.strategy),
        "state": rollout.state.value,
        "reason": rollout.reason,
        "message": rollout.message,
        "waves": [_wave_to_json(wave) for wave in rollout.waves],
        "end_time": rollout.end_time,
        "revision": rollout.revision,
        "creator": rollout.creator,
        "related_id": rollout.related_id,
        "prefetches": _releases_to_json(rollout.prefetches),
    }


def rollout_from_row(row: Row) -> Rollout:
    return Rollout(
        id=RolloutId(row["id"]),
        uid=row["uid"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        deployment_id=DeploymentId(row["deployment_id"]),
        model_id=ModelId(row["model_id"]),
        target_version=row["target_version"],
        previous_version=row["previous_version"],
        strategy=strategy_from_json(row["strategy"]),
        state=RolloutState(row["state"]),
        reason=row["reason"],
        message=row["message"],
        waves=tuple(_wave_from_json(value) for value in row["waves"]),
        end_time=row["end_time"],
        revision=row["revision"],
        creator=row["creator"],
        related_id=None if row["related_id"] is None else RolloutId(row["related_id"]),
        prefetches=_releases_from_json(row["prefetches"]),
    )


def _wave_to_json(wave: Wave) -> dict[str, Any]:
    return {
        "index": wave.index,
        "size": size_to_json(wave.size),
        "agents": list(wave.agents),
        "state": wave.state.value,
        "admit_time": time_to_json(wave.admit_time),
        "complete_time": time_to_json(wave.complete_time),
        "verdict": None if wave.verdict is None else verdict_to_json(wave.verdict),
        "releases": _releases_to_json(wave.releases),
        "approver": wave.approver,
        "approve_time": time_to_json(wave.approve_time),
        "shadow_time": time_to_json(wave.shadow_time),
    }


def _wave_from_json(value: Row) -> Wave:
    agents = tuple(AgentId(agent_id) for agent_id in value["agents"])
    admit_time = time_from_json(value["admit_time"])
    releases = value.get("releases")
    return Wave(
        index=value["index"],
        size=size_from_json(value["size"]),
        agents=agents,
        state=WaveState(value["state"]),
        admit_time=admit_time,
        complete_time=time_from_json(value["complete_time"]),
        verdict=None if value["verdict"] is None else verdict_from_json(value["verdict"]),
        releases=_all_at(admit_time, agents) if releases is None else _releases_from_json(releases),
        approver=value.get("approver", ""),
        approve_time=time_from_json(value.get("approve_time")),
        shadow_time=time_from_json(value.get("shadow_time")),
    )


def _all_at(admit_time: datetime | None, agents: Sequence[AgentId]) -> tuple[Release, ...]:
    """Releases of a wave from before there were any: the whole wave was given the version when it was admitted."""
    if admit_time is None:
        return ()
    time = admit_time.replace(microsecond=0)
    return tuple(Release(agent_id, time) for agent_id in agents)


def _releases_to_json(releases: Sequence[Release]) -> dict[str, Any]:
    """Two lists side by side: of a large fleet they are written again with every step."""
    assert not any(release.time.microsecond for release in releases), "releases are kept to the second"
    return {
        "agents": [release.agent_id for release in releases],
        "seconds": [int(release.time.timestamp()) for release in releases],
    }


def _releases_from_json(value: Row) -> tuple[Release, ...]:
    return tuple(
        Release(AgentId(agent_id), datetime.fromtimestamp(seconds, UTC))
        for agent_id, seconds in zip(value.get("agents", ()), value.get("seconds", ()), strict=True)
    )
