"""What Triton's protocol has and an agent does not serve: each is refused with what to do instead."""

from enum import StrEnum

from agent.domain.errors import Reason, RequestError


class Unserved(StrEnum):
    """A part of the protocol, as the refusal names it."""

    LOADING = "loading and unloading of models"
    TRACING = "trace settings"
    LOGGING = "log settings"
    CUDA = "CUDA shared memory"


_REMEDIES = {
    Unserved.LOADING: "deploy with the controller (`lineside deployments`), which decides what an agent serves",
    Unserved.TRACING: "start the agent with its OpenTelemetry settings",
    Unserved.LOGGING: "set them where the agent is started",
    Unserved.CUDA: "use system shared memory",
}


def unserved(what: Unserved) -> RequestError:
    """The refusal (NOT_SERVED)."""
    return RequestError(f"no {what} here", remedy=_REMEDIES[what], reason=Reason.NOT_SERVED)


def cuda_region_not_found(name: str) -> RequestError:
    """No region of CUDA memory is ever registered."""
    return RequestError(
        f"{name[:64]!r} is not registered",
        field="name",
        remedy=_REMEDIES[Unserved.CUDA],
        reason=Reason.REGION_NOT_FOUND,
    )
