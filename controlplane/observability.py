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

DRIFT_MOVED = "drift_moved"
"""The inputs or answers of a slot left their reference, or came back: drift, action, reason, message."""
DRIFT_PASSED_OVER = "drift_passed_over"
"""More came than could be looked at for drift; the oldest batches were left out: batches."""

TRAINING_MOVED = "training_moved"
"""A training run was stored anew: run, model, state, reason, message, attempt."""
TRAINING_TICK_OVERTAKEN = "training_tick_overtaken"
"""Somebody else changed the run while a tick decided; the next tick decides again: run."""

LEADERSHIP_TAKEN = "leadership_taken"
"""This controller runs the jobs from now on: holder, epoch."""
LEADERSHIP_LOST = "leadership_lost"
"""This controller runs no jobs any more: holder, epoch, cause."""
LEASE_NOT_RENEWED = "lease_not_renewed"
"""The database refused or was away; the next try follows: holder, cause."""
NOTICES_CONNECTED = "notices_connected"
"""Changes made through other controllers are heard of at once."""
NOTICES_DISCONNECTED = "notices_disconnected"
"""They are not, until the next connection; streams look by themselves meanwhile: cause, retry_seconds."""

TRACING_MISSING = "tracing_missing"
"""Traces were asked for and their packages are not installed: module, remedy."""
SERVING = "serving"
"""Every listener answers: api, fleet, agent_bytes, operator_bytes."""
STOPPING = "stopping"
"""A signal came, or a task failed; calls under way may end."""
LISTENING = "listening"
"""One listener answers: listener, address, mutual."""
TASK_FAILED = "task_failed"
"""A part of the process ended that must not; the process stops: task."""
FEW_OPEN_FILES = "few_open_files"
"""The system lets us open fewer files than a large fleet needs: soft, hard, wanted."""
RPC_FAILED = "rpc_failed"
"""A call failed by our fault; the caller was told the id: error_id, method."""
UPLOAD_RESUMED = "upload_resumed"
"""A blob's upload goes on from offset_bytes; those before are not sent again."""
OBSERVATIONS_KEPT = "observations_kept"
"""What agents reported could not be written and waits for the next try: count, reason, cause."""
CONVERGENCE_PUT_OFF = "convergence_put_off"
"""New facts of agents could not be acted upon yet; it is tried again: reason, cause."""
BYTES_PROCESS_ENDED = "bytes_process_ended"
"""The bytes process ended by itself and is started anew: status, restart_seconds."""
BYTES_PROCESS_FAILED = "bytes_process_failed"
"""The new one did not come up; another try follows: error."""
BYTES_PROCESS_RESTARTED = "bytes_process_restarted"
"""The new one answers on the same ports: pid."""
JUDGEMENT_WAITS = "judgement_waits"
"""A candidate could not be judged now and is at the next tick: run, cause."""
PROMOTION_WAITS = "promotion_waits"
"""What was approved could not go out now and is tried again: promotion, cause."""
TRAINING_TRIGGERED = "training_triggered"
"""A training policy started a run: run, trigger, cause."""
TRIGGER_WAITS = "trigger_waits"
"""A training policy could not be looked at now and is at the next tick: model, cause."""
BYTES_PROCESS_CANNOT_SERVE = "bytes_process_cannot_serve"
"""The bytes process ends before it listens: error."""


def configure_logging(*, level: str = "INFO") -> None:
    """Send structured events to standard error. Call once, in `main`."""
    # It tells in prose of each round that is left out while the one before it still runs, which is as it should be.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
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
