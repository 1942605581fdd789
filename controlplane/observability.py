"""Names of log events, and how they are written: one JSON object a line, stable names, fields instead of prose."""

import logging
import sys

import structlog

ROLLOUT_MOVED = "rollout_moved"
"""A rollout was stored anew: rollout, deployment, state, reason, message, revision."""
ROLLOUT_TICK_OVERTAKEN = "rollout_tick_overtaken"
"""Somebody else changed the rollout while a tick decided; the next tick decides again: rollout."""
DESIRED_CHANGED = "desired_changed"
"""Agents were given another desired state: agents (how many)."""


def configure_logging(*, level: str = "INFO") -> None:
    """Send structured events to standard error. Call once, in `main`."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
