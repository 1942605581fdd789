"""The typed Python client of the controller's public API, for notebooks, the command line and the console.

    with Client.from_config("operator.toml") as client:
        version = client.models.publish("solar", "solar.xml")
        for agent in client.agents.list(selector="line=3"):
            ...

Answers are the messages of `lineside.v1`. What fails raises a ClientError that names the field and the remedy.
"""

from controlplane.client.config import OperatorConfig, load_config
from controlplane.client.errors import (
    ApiError,
    ClientError,
    IntegrityError,
    InvalidInputError,
    UnreachableError,
    WaitTimeoutError,
)
from controlplane.client.models import Progress, Stage
from controlplane.client.preprocessing import InputPreprocessing, Preprocessing, read_preprocessing
from controlplane.client.rollouts import Plan
from controlplane.client.session import Client

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "InputPreprocessing",
    "IntegrityError",
    "InvalidInputError",
    "OperatorConfig",
    "Plan",
    "Preprocessing",
    "Progress",
    "Stage",
    "UnreachableError",
    "WaitTimeoutError",
    "load_config",
    "read_preprocessing",
]
