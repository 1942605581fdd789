"""Rollouts with their strategy, waves and verdicts."""

from typing import Any

from controlplane.domain.gate import Evidence, FailureAction, GateOutcome, GatePolicy, GateVerdict
from controlplane.domain.ids import AgentId, DeploymentId, ModelId, RolloutId
from controlplane.domain.rollout import Rollout, RolloutState, RolloutStrategy, Wave, WaveSize, WaveState
from controlplane.store.mapping.values import Row, float_from_json, float_to_json, time_from_json, time_to_json


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
        "strategy": _strategy_to_json(rollout.strategy),
        "state": rollout.state.value,
        "reason": rollout.reason,
        "message": rollout.message,
        "waves": [_wave_to_json(wave) for wave in rollout.waves],
        "end_time": rollout.end_time,
        "revision": rollout.revision,
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
        strategy=_strategy_from_json(row["strategy"]),
        state=RolloutState(row["state"]),
        reason=row["reason"],
        message=row["message"],
        waves=tuple(_wave_from_json(value) for value in row["waves"]),
        end_time=row["end_time"],
        revision=row["revision"],
    )


def _size_to_json(size: WaveSize) -> dict[str, Any]:
    return {"count": size.count, "percent": size.percent}


def _size_from_json(value: Row) -> WaveSize:
    return WaveSize(count=value["count"], percent=value["percent"])


def _strategy_to_json(strategy: RolloutStrategy) -> dict[str, Any]:
    return {
        "waves": [_size_to_json(size) for size in strategy.waves],
        "bake_seconds": float_to_json(strategy.bake_seconds),
        "gate": {
            "min_inferences": strategy.gate.min_inferences,
            "max_errors_per_mille": strategy.gate.max_errors_per_mille,
            "max_failed_installs": strategy.gate.max_failed_installs,
            "on_failure": strategy.gate.on_failure.value,
        },
    }


def _strategy_from_json(value: Row) -> RolloutStrategy:
    gate = value["gate"]
    return RolloutStrategy(
        waves=tuple(_size_from_json(size) for size in value["waves"]),
        bake_seconds=float_from_json(value["bake_seconds"]),
        gate=GatePolicy(
            min_inferences=gate["min_inferences"],
            max_errors_per_mille=gate["max_errors_per_mille"],
            max_failed_installs=gate["max_failed_installs"],
            on_failure=FailureAction(gate["on_failure"]),
        ),
    )


def _wave_to_json(wave: Wave) -> dict[str, Any]:
    return {
        "index": wave.index,
        "size": _size_to_json(wave.size),
        "agents": list(wave.agents),
        "state": wave.state.value,
        "admit_time": time_to_json(wave.admit_time),
        "complete_time": time_to_json(wave.complete_time),
        "verdict": None if wave.verdict is None else _verdict_to_json(wave.verdict),
    }


def _wave_from_json(value: Row) -> Wave:
    return Wave(
        index=value["index"],
        size=_size_from_json(value["size"]),
        agents=tuple(AgentId(agent_id) for agent_id in value["agents"]),
        state=WaveState(value["state"]),
        admit_time=time_from_json(value["admit_time"]),
        complete_time=time_from_json(value["complete_time"]),
        verdict=None if value["verdict"] is None else _verdict_from_json(value["verdict"]),
    )


def _verdict_to_json(verdict: GateVerdict) -> dict[str, Any]:
    return {
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "message": verdict.message,
        "evidence": {
            "targets": verdict.evidence.targets,
            "installed": verdict.evidence.installed,
            "failed": verdict.evidence.failed,
            "inferences": verdict.evidence.inferences,
            "errors": verdict.evidence.errors,
            "wave_inferences": verdict.evidence.wave_inferences,
            "wave_errors": verdict.evidence.wave_errors,
            "wave_age_seconds": float_to_json(verdict.evidence.wave_age_seconds),
            "first_failure": verdict.evidence.first_failure,
        },
        "evaluate_time": time_to_json(verdict.evaluate_time),
    }


def _verdict_from_json(value: Row) -> GateVerdict:
    evidence = value["evidence"]
    evaluate_time = time_from_json(value["evaluate_time"])
    assert evaluate_time is not None
    return GateVerdict(
        outcome=GateOutcome(value["outcome"]),
        reason=value["reason"],
        message=value["message"],
        evidence=Evidence(
            targets=evidence["targets"],
            installed=evidence["installed"],
            failed=evidence["failed"],
            inferences=evidence["inferences"],
            errors=evidence["errors"],
            wave_inferences=evidence["wave_inferences"],
            wave_errors=evidence["wave_errors"],
            wave_age_seconds=float_from_json(evidence["wave_age_seconds"]),
            first_failure=evidence.get("first_failure", ""),
        ),
        evaluate_time=evaluate_time,
    )
