"""What is right and wrong with the agent itself, as conditions that are reported at every sync."""

import threading
from collections.abc import Callable

from agent.app.ports import Clock
from agent.domain.slot import AgentCondition

TRUE = "TRUE"
FALSE = "FALSE"

STATE_WRITABLE = "StateWritable"
"""The state folder can be written, so that a restart would serve what serves now."""
STATE_READABLE = "StateReadable"
"""What was saved last could be read at the start; FALSE until the next start when the agent had to start empty."""
SPOOL_WRITABLE = "SpoolWritable"
"""Results can be kept on disk; while FALSE they are counted and their metrics kept in memory."""
SAMPLES_WRITABLE = "SamplesWritable"
"""Samples can be kept on disk."""
CERTIFICATE_VALID = "CertificateValid"
"""The agent's certificate is valid and renewed in time."""
CLOCK_PLAUSIBLE = "ClockPlausible"
"""The box's clock agrees with the controller's certificate; while FALSE no connection comes about."""
CONTROLLER_ACCEPTS = "ControllerAccepts"
"""The controller takes this agent for what it says it is; FALSE once revoked."""
DEVICES_ANSWER = "DevicesAnswer"
"""Every device that was chosen answers; FALSE until the next start once one was lost at run time."""
DELIVERY_ACCEPTED = "DeliveryAccepted"
"""The controller takes every batch and sample; FALSE until the next start once it refused one for good."""


class Conditions:
    """Thread-safe. A condition's time moves only when its state does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._conditions: dict[str, AgentCondition] = {}
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener`, from whatever thread, when a condition's state has changed."""
        self._listeners.append(listener)

    def set(self, kind: str, *, holds: bool, reason: str, message: str = "") -> None:
        state = TRUE if holds else FALSE
        with self._lock:
            before = self._conditions.get(kind)
            changed = before is None or before.state != state
            time = self._clock.now() if before is None or changed else before.transition_time
            self._conditions[kind] = AgentCondition(
                type=kind, state=state, reason=reason, message=message, transition_time=time
            )
        if changed:
            for listener in tuple(self._listeners):
                listener()

    def all(self) -> tuple[AgentCondition, ...]:
        """By type."""
        with self._lock:
            return tuple(condition for _, condition in sorted(self._conditions.items()))
