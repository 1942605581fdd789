"""Resource names from what people write: `solar` for `models/solar`, `solar:7` for `models/solar/versions/7`."""

from collections.abc import Callable

from controlplane.client.errors import InvalidInputError


def _named(collection: str) -> Callable[[str], str]:
    def name(written: str) -> str:
        return written if written.startswith(f"{collection}/") else f"{collection}/{written}"

    name.__doc__ = f"Return `{collection}/ID` for an id or a name. The controller judges the id."
    return name


model_name = _named("models")
agent_name = _named("agents")
deployment_name = _named("deployments")
rollout_name = _named("rollouts")
join_token_name = _named("joinTokens")
sample_name = _named("samples")
operator_name = _named("operators")
training_run_name = _named("trainingRuns")
dataset_name = _named("datasets")


def short(name: str) -> str:
    """Return what people write for a resource name: `agents/st-1` is `st-1`, `models/m/versions/7` is `m:7`."""
    match name.split("/"):
        case ["models", model, "versions", number]:
            return f"{model}:{number}"
        case [_, identifier]:
            return identifier
        case _:
            return name


def version_name(model: str, number: int) -> str:
    """Return the resource name of a version."""
    return f"{model_name(model)}/versions/{number}"


def parse_reference(written: str, *, field: str) -> tuple[str, int | None]:
    """Return the model's id and the number of `solar:7` or a version's resource name; None for `solar` alone.

    Raises InvalidInputError when what stands for the number is none.
    """
    model, colon, number = short(written).partition(":")
    if not colon:
        return model, None
    return model, parse_number(number, field=field)


def parse_number(written: str, *, field: str) -> int:
    """Return a version number, which is 1 or more. Raises InvalidInputError."""
    if not (written.isascii() and written.isdecimal() and int(written) > 0):
        raise InvalidInputError(
            f"{written!r} is not a version number", field=field, remedy="write a number from 1, or NAME:NUMBER"
        )
    return int(written)
