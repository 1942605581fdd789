"""Resource names in requests (AIP-122). Each parser raises FieldInvalidError naming the field and the pattern."""

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import (
    AgentId,
    DatasetId,
    DeploymentId,
    JoinTokenId,
    ModelId,
    RolloutId,
    SampleId,
    TrainingRunId,
    check_resource_id,
)


def parse_model_name(name: str, *, field: str) -> ModelId:
    """Return the id of `models/{model}`."""
    return ModelId(_only_id(name, "models", "model", field=field))


def parse_agent_name(name: str, *, field: str) -> AgentId:
    """Return the id of `agents/{agent}`."""
    return AgentId(_only_id(name, "agents", "agent", field=field))


def parse_deployment_name(name: str, *, field: str) -> DeploymentId:
    """Return the id of `deployments/{deployment}`."""
    return DeploymentId(_only_id(name, "deployments", "deployment", field=field))


def parse_rollout_name(name: str, *, field: str) -> RolloutId:
    """Return the id of `rollouts/{rollout}`."""
    return RolloutId(_only_id(name, "rollouts", "rollout", field=field))


def parse_sample_name(name: str, *, field: str) -> SampleId:
    """Return the id of `samples/{sample}`."""
    return SampleId(_only_id(name, "samples", "sample", field=field))


def parse_training_run_name(name: str, *, field: str) -> TrainingRunId:
    """Return the id of `trainingRuns/{training_run}`."""
    return TrainingRunId(_only_id(name, "trainingRuns", "training_run", field=field))


def parse_dataset_name(name: str, *, field: str) -> DatasetId:
    """Return the id of `datasets/{dataset}`."""
    return DatasetId(_only_id(name, "datasets", "dataset", field=field))


def parse_join_token_name(name: str, *, field: str) -> JoinTokenId:
    """Return the id of `joinTokens/{join_token}`."""
    return JoinTokenId(_only_id(name, "joinTokens", "join_token", field=field))


def parse_operator_name(name: str, *, field: str) -> str:
    """Return the id of `operators/{operator}`."""
    return _only_id(name, "operators", "operator", field=field)


def parse_version_name(name: str, *, field: str) -> tuple[ModelId, int]:
    """Return model and number of `models/{model}/versions/{number}`."""
    model, _, number = name.partition("/versions/")
    if not (number.isascii() and number.isdigit() and len(number) <= 18 and int(number) > 0):
        raise _no_name(name, "models/{model}/versions/{number}", field=field)
    return parse_model_name(model, field=field), int(number)


def version_name(model_id: ModelId, number: int) -> str:
    return f"models/{model_id}/versions/{number}"


def _only_id(name: str, collection: str, noun: str, *, field: str) -> str:
    before, slash, resource_id = name.partition("/")
    if before != collection or not slash or "/" in resource_id:
        raise _no_name(name, f"{collection}/{{{noun}}}", field=field)
    return check_resource_id(resource_id, field=field)


def _no_name(name: str, pattern: str, *, field: str) -> FieldInvalidError:
    return FieldInvalidError(f"{name[:200]!r} is not a name", field=field, remedy=f"write {pattern}")
