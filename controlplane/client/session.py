"""The client: one connection to one controller, and its resources."""

from pathlib import Path
from types import TracebackType
from typing import Self

from controlplane.client.agents import Agents
from controlplane.client.audit import Audit
from controlplane.client.channel import Connection
from controlplane.client.config import OperatorConfig, load_config
from controlplane.client.datasets import Datasets
from controlplane.client.deployments import Deployments
from controlplane.client.drift import Drifts
from controlplane.client.labels import Labels
from controlplane.client.lineage import Lineages
from controlplane.client.models import Models
from controlplane.client.operators import Operators
from controlplane.client.promotions import Promotions
from controlplane.client.results import Results
from controlplane.client.retry import Pacing
from controlplane.client.rollouts import Rollouts
from controlplane.client.sample_imports import SampleImports
from controlplane.client.samples import Samples
from controlplane.client.tokens import Tokens
from controlplane.client.training import Training
from controlplane.client.training_policies import TrainingPolicies


class Client:
    """A controller's public API. Synchronous; connects at the first call. Close it, or use it in a `with`.

    Every call has a deadline and raises ClientError when it fails.
    """

    def __init__(self, config: OperatorConfig, *, pacing: Pacing | None = None) -> None:
        self._connection = Connection(config, pacing=pacing)
        self.models = Models(self._connection)
        self.agents = Agents(self._connection)
        self.tokens = Tokens(self._connection)
        self.deployments = Deployments(self._connection)
        self.rollouts = Rollouts(self._connection)
        self.samples = Samples(self._connection)
        self.sample_imports = SampleImports(self._connection)
        self.labels = Labels(self._connection)
        self.datasets = Datasets(self._connection)
        self.results = Results(self._connection)
        self.drifts = Drifts(self._connection)
        self.promotions = Promotions(self._connection)
        self.training_policies = TrainingPolicies(self._connection)
        self.lineages = Lineages(self._connection)
        self.audit = Audit(self._connection)
        self.operators = Operators(self._connection)
        self.training = Training(self._connection)

    @classmethod
    def from_config(cls, path: Path | str | None = None, *, controller: str | None = None) -> Self:
        """Return a client by operator.toml; see `load_config` for where it is looked for. Raises InvalidInputError."""
        return cls(load_config(Path(path) if path else None, controller=controller))

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
