"""A box on the stage: what it is told, when it does it, and what it says. Times are seconds since the start."""

import math
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.domain.evidence import InferenceCount
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.inventory import (
    Agent,
    AgentRecord,
    Host,
    Observation,
    ObservedShadow,
    ObservedSlot,
    ObservedState,
    ShadowState,
    SlotState,
)
from controlplane.rehearsal.draws import draw_binomial, draw_exponential, draw_poisson
from controlplane.rehearsal.stage import Assumptions, BoxSpec

SYNC_SECONDS = 2.0
PREPARE_SECONDS = (5.0, 30.0)
"""Measuring and compiling take some time between these."""
SWAP_SECONDS = 1.0
DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the controller wants of a box; the generation rises with each change."""

    generation: int
    version: int
    prefetch: bool = False
    shadow_max: int = 0
    """Most inputs to compare; 0 for no shadow run."""
    fetch_bytes_per_second_max: int = 0


class Box:
    """One box. It has one slot, and at most one install under way."""

    def __init__(
        self, spec: BoxSpec, assumptions: Assumptions, target_version: int, *, start: datetime, seed: str
    ) -> None:
        self.spec = spec
        self.fetched_bytes = 0
        self.inferences = 0
        """By the target version, as far as the controller has heard."""
        self.errors = 0
        self.failed_inferences = 0
        """In truth."""
        self.compared = 0
        self.compared_errors = 0
        self._assumptions = assumptions
        self._target = target_version
        self._start = start
        self._rng = random.Random(seed)  # noqa: S311 - plays are drawn, nothing is kept secret
        self._rate = assumptions.inferences_per_second or spec.inferences_per_second or 1.0
        bad = assumptions.errors_device_class in spec.device_class
        self._error_share = assumptions.errors_per_mille / 1000 if bad else 0.0
        self._agent = Agent(id=spec.agent_id, uid=spec.agent_id, create_time=start, labels=spec.labels)
        self._host = Host(architecture=spec.architecture)
        self._time = 0.0
        self._up = self._draw_up() if spec.connected else False
        self._turns = self._draw_turn()
        self._heard = 0.0 if spec.connected else -math.inf
        self._order = self._taken = Order(generation=1, version=spec.serving_version)
        self._serves = spec.serving_version
        self._failed = False
        self._prepared = False
        self._done: float | None = None
        self._spooled = [0, 0]
        self._said: ObservedSlot | None = None

    # --- what the controller sees ---

    def record(self, model_id: ModelId) -> AgentRecord:
        """What is known of the box."""
        observation = None
        if self._heard > -math.inf:
            if self._said is None:
                self._said = self._slot(model_id)
            observation = Observation(
                agent_id=self.spec.agent_id,
                observed=ObservedState(
                    generation=self._taken.generation, slots=(self._said,) if self._said.target_version else ()
                ),
                receive_time=self._start + timedelta(seconds=self._heard),
                host=self._host,
                devices=self.spec.devices,
            )
        return AgentRecord(agent=self._agent, observation=observation, desired_generation=self._order.generation)

    def count(self) -> InferenceCount:
        """Inferences of the target version that have been heard of."""
        heard = self._start + timedelta(seconds=max(self._heard, 0.0))
        return InferenceCount(
            agent_id=self.spec.agent_id, inferences=self.inferences, errors=self.errors, last_receive_time=heard
        )

    @property
    def agent_id(self) -> AgentId:
        return self.spec.agent_id

    @property
    def next_change(self) -> float:
        """When something happens to it by itself."""
        return min(self._turns, self._done if self._done is not None else math.inf)

    @property
    def is_behind(self) -> bool:
        """Whether it has yet to hear what is wanted of it."""
        return self._order.generation > self._taken.generation and self._up

    # --- what happens ---

    def tell(self, *, version: int, prefetch: bool, shadow_max: int, fetch_bytes_per_second_max: int) -> bool:
        """Want something of it from now on; return whether that is new."""
        wanted = Order(
            generation=self._order.generation,
            version=version,
            prefetch=prefetch,
            shadow_max=shadow_max,
            fetch_bytes_per_second_max=fetch_bytes_per_second_max,
        )
        if wanted == self._order:
            return False
        self._order = Order(
            generation=wanted.generation + 1,
            version=version,
            prefetch=prefetch,
            shadow_max=shadow_max,
            fetch_bytes_per_second_max=fetch_bytes_per_second_max,
        )
        return True

    def advance(self, time: float) -> None:
        """Let time go by."""
        while self.next_change <= time:
            at = max(self.next_change, self._time)
            self._work(at)
            if self._turns <= at:
                self._up = not self._up
                self._turns = at + self._draw_turn()
            else:
                self._finish()
        self._work(time)
        if self._up:
            heard = time - SYNC_SECONDS * self._draw_losses()
            if heard > self._heard:
                self._hear(heard)

    def _work(self, time: float) -> None:
        """Answer and compare what came by until then."""
        seconds, self._time = time - self._time, time
        if seconds <= 0:
            return
        seen = self._rate * seconds
        count = int(seen) + (self._rng.random() < seen % 1)
        if self._serves == self._target:
            errors = draw_binomial(self._rng, count, self._error_share)
            self.failed_inferences += errors
            self._spooled[0] += count
            self._spooled[1] += errors
        elif self._taken.shadow_max and self._prepared:
            compared = min(count, self._taken.shadow_max - self.compared)
            self.compared += compared
            self.compared_errors += draw_binomial(self._rng, compared, self._error_share)

    def _hear(self, time: float) -> None:
        """A message of the box has come: it says everything, and takes up what is wanted."""
        self._heard, self._said = time, None
        self.inferences += self._spooled[0]
        self.errors += self._spooled[1]
        self._spooled = [0, 0]
        if self._order.generation > self._taken.generation:
            self._taken = self._order
            self._begin(self._time)

    def _begin(self, time: float) -> None:
        wants = self._taken.version
        self._done = None
        self._failed = self._failed and wants == self._target
        if wants != self._serves and not self._failed:
            self._done = time + (self._prepare_seconds() if self._needs_bytes(wants) else SWAP_SECONDS)
        elif (self._taken.prefetch or self._taken.shadow_max) and not self._prepared:
            self._done = time + self._prepare_seconds()

    def _needs_bytes(self, version: int) -> bool:
        return version == self._target and not self._prepared

    def _prepare_seconds(self) -> float:
        cap = self._taken.fetch_bytes_per_second_max
        rate = min(self._assumptions.fetch_bytes_per_second, cap or self._assumptions.fetch_bytes_per_second)
        self.fetched_bytes += self.spec.fetch_bytes
        seconds = self.spec.fetch_bytes / rate + self._rng.uniform(*PREPARE_SECONDS)
        # A restart begins the preparation anew; the bytes that were fetched are kept.
        restarts = draw_poisson(self._rng, self._assumptions.restarts_per_day * seconds / DAY_SECONDS)
        return seconds + restarts * self._rng.uniform(*PREPARE_SECONDS)

    def _finish(self) -> None:
        """Work that was under way is done."""
        self._done, self._said = None, None
        wants = self._taken.version
        if wants == self._serves:
            self._prepared = True
            return
        if wants == self._target and self._rng.random() < self._assumptions.install_failures_per_mille / 1000:
            self._failed = True
            return
        self._prepared = self._prepared or wants == self._target
        self._serves = wants

    def _slot(self, model_id: ModelId) -> ObservedSlot:
        wants = self._taken.version
        state = SlotState.SERVING if wants == self._serves else SlotState.PREPARING
        shadow = None
        if self._taken.shadow_max and self._prepared:
            complete = self.compared >= self._taken.shadow_max
            shadow = ObservedShadow(
                candidate_version=self._target,
                state=ShadowState.COMPLETE if complete else ShadowState.RUNNING,
                compared=self.compared,
                offer=1,
            )
        return ObservedSlot(
            slot=model_id,
            serving_version=self._serves,
            target_version=wants,
            state=SlotState.FAILED if self._failed else state,
            failure_reason="REHEARSED" if self._failed else "",
            failure_message="the install fails by assumption" if self._failed else "",
            offer=1,
            prefetched_version=self._target if self._prepared and self._serves != self._target else 0,
            shadow=shadow,
        )

    # --- chance ---

    def _draw_up(self) -> bool:
        return self._rng.random() >= self._assumptions.offline_per_mille / 1000

    def _draw_turn(self) -> float:
        """How long the box stays in or out of reach."""
        share, outage = self._assumptions.offline_per_mille / 1000, self._assumptions.outage_seconds
        if share <= 0:
            # Who is out of reach now comes back as after an outage; who is in reach stays so.
            return math.inf if self._up else draw_exponential(self._rng, outage)
        if share >= 1:
            return draw_exponential(self._rng, outage) if self._up else math.inf
        return draw_exponential(self._rng, outage if not self._up else outage * (1 - share) / share)

    def _draw_losses(self) -> int:
        """How many of the last messages in a row were lost."""
        loss = self._assumptions.message_loss_per_mille / 1000
        if loss <= 0:
            return 0
        if loss >= 1:
            return 1 << 30
        return int(math.log(1.0 - self._rng.random()) / math.log(loss))
