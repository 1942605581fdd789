"""How a rollout moves, as options of the command line or as a file of the same names.

A file is read by the parser of the command line itself, so a value is written and refused there as it is here.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter
from google.protobuf.duration_pb2 import Duration
from lineside.v1 import rollout_pb2

from controlplane.cli.quantity import (
    BytesOption,
    CountOption,
    DurationOption,
    MillisecondsOption,
    ShareOption,
    parse_duration,
)
from controlplane.client import InvalidInputError

_STRATEGY = Group("Strategy", sort_key=10)
_GATE = Group("Gate", sort_key=20)
_WINDOW_REMEDY = "write SELECTOR; CRON; DURATION; TIME ZONE, such as 'site=suzhou; 0 2 * * SAT; 2h; Asia/Shanghai'"
_FILE_BYTES_MAX = 1 << 20
"""A strategy is a page of text; more is the wrong file."""


class FailureAction(Enum):
    """What a failed gate does."""

    ROLLBACK = rollout_pb2.GatePolicy.FAILURE_ACTION_ROLLBACK
    PAUSE = rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE


class Approval(Enum):
    """Which waves need one."""

    NONE = rollout_pb2.ApprovalPolicy.SCOPE_NONE
    AFTER_CANARY = rollout_pb2.ApprovalPolicy.SCOPE_AFTER_CANARY
    EVERY_WAVE = rollout_pb2.ApprovalPolicy.SCOPE_EVERY_WAVE


_OF_GATE = Parameter(group=_GATE)


@Parameter(name="*", group=_STRATEGY)
@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyOptions:
    """What is None was not said: the file's word counts, then the controller's default."""

    strategy: Path | None = None
    """TOML file with options of these names, `waves = "1,50%,100%"`; what stands on the command line wins."""
    waves: str | None = None
    """Cumulative sizes, counts or percentages, the last 100%; else all at once."""
    bake: DurationOption | None = None
    """Least age of a wave before its gate may pass: 10s, 5m, 1h."""
    canary_per_device_class: Annotated[bool | None, Parameter(negative="--no-canary-per-device-class")] = None
    """Put an agent of every device class into the first wave; so unless it is denied."""
    max_unavailable_per_line: CountOption | None = None
    """Most agents of one line that may be between versions at once; else no bound."""
    approval: Approval | None = None
    """Which waves wait for an approval: none, after-canary or every-wave."""
    second_person: bool | None = None
    """Who approves must not be who started the rollout."""
    window: tuple[str, ...] = ()
    """'SELECTOR; CRON; DURATION; TIME ZONE[; start]', in which agents may swap, or waves start; may be repeated."""
    deadline: DurationOption | None = None
    """How long the rollout may take before it is treated as failed; else for ever."""
    install_timeout: DurationOption | None = None
    """How long an agent in reach may take to install; else the controller's default."""
    offline_wait: DurationOption | None = None
    """How long a wave waits for agents out of reach; else the controller's default."""
    agents_per_minute: CountOption | None = None
    """Most agents that get the version in a minute; else no bound."""
    bytes_per_second_per_site: BytesOption | None = None
    """Most bytes a second that the agents of one site fetch together: 10MB; else no bound."""
    prefetch: bool | None = None
    """Fetch and prepare on every target before its wave."""
    shadow: CountOption | None = None
    """Compare the version on so many live inputs of the first wave before it answers any."""
    shadow_agreement: ShareOption | None = None
    """Least share of equal top labels in the comparison: 95%; else the controller's default."""
    shadow_p99: MillisecondsOption | None = None
    """Most milliseconds of the serving version's p99 while the other runs beside it."""
    min_inferences: Annotated[CountOption | None, _OF_GATE] = None
    """Inferences by the new version that a gate wants to see; else the controller's default."""
    max_errors_per_mille: Annotated[CountOption | None, _OF_GATE] = None
    """Most failed inferences in 1,000; else the controller's default."""
    max_failed_installs: Annotated[CountOption | None, _OF_GATE] = None
    """Most agents where the new version may fail to install; else none."""
    on_failure: Annotated[FailureAction | None, _OF_GATE] = None
    """What a failed gate does: rollback, or pause; else rollback."""
    max_latency_p95: Annotated[MillisecondsOption | None, _OF_GATE] = None
    """Most milliseconds of the 95th percentile of latency."""
    max_latency_p99: Annotated[MillisecondsOption | None, _OF_GATE] = None
    """Most milliseconds of the 99th percentile of latency."""
    max_latency_p99_percent: Annotated[CountOption | None, _OF_GATE] = None
    """Most percent that the 99th percentile may be of the version before on the same agents: 120."""
    min_throughput_percent: Annotated[CountOption | None, _OF_GATE] = None
    """Least percent that inferences a second may be of the version before on the same agents: 90."""
    max_confidence_drift: Annotated[ShareOption | None, _OF_GATE] = None
    """Most distance of the confidences from those of the version before: 10%."""
    max_class_drift: Annotated[ShareOption | None, _OF_GATE] = None
    """Most distance of the mix of labels from that of the version before: 10%."""
    max_silent: Annotated[ShareOption | None, _OF_GATE] = None
    """Most agents that may fall silent after they took the version up: 5%; else the controller's default."""
    confidence: Annotated[ShareOption | None, _OF_GATE] = None
    """How sure a check must be before it passes or fails: 99%; else the controller's default."""
    idle_timeout: Annotated[DurationOption | None, _OF_GATE] = None
    """A line without inferences for this long makes a gate inconclusive; else the controller's default."""


UNSAID = StrategyOptions()


def strategy_of(options: StrategyOptions) -> rollout_pb2.RolloutStrategy:
    """Return the strategy that the options and their file ask for. Raises InvalidInputError."""
    asked = _with_file(options)
    if asked.shadow is None and (asked.shadow_agreement is not None or asked.shadow_p99 is not None):
        raise InvalidInputError(
            "a bound of a shadow run without one", field="shadow", remedy="say how many inputs to compare: --shadow 500"
        )
    strategy = rollout_pb2.RolloutStrategy(
        waves=[size.strip() for size in (asked.waves or "100%").split(",")],
        gate=_gate_of(asked),
        canary_per_device_class=asked.canary_per_device_class,
        max_unavailable_per_line=asked.max_unavailable_per_line or 0,
        windows=[parse_window(written) for written in asked.window],
        bake=_duration(asked.bake),
        deadline=_duration(asked.deadline),
        install_timeout=_duration(asked.install_timeout),
        offline_wait=_duration(asked.offline_wait),
        prefetch=bool(asked.prefetch),
    )
    if asked.approval is not None or asked.second_person is not None:
        scope = asked.approval or (Approval.AFTER_CANARY if asked.second_person else Approval.NONE)
        strategy.approval.CopyFrom(
            rollout_pb2.ApprovalPolicy(scope=scope.value, second_person=bool(asked.second_person))
        )
    if asked.agents_per_minute is not None or asked.bytes_per_second_per_site is not None:
        strategy.pace.CopyFrom(
            rollout_pb2.Pace(
                agents_per_minute=asked.agents_per_minute or 0,
                bytes_per_second_per_site=asked.bytes_per_second_per_site or 0,
            )
        )
    if asked.shadow is not None:
        strategy.shadow.CopyFrom(
            rollout_pb2.ShadowPolicy(
                min_comparisons=asked.shadow,
                min_agreement_per_mille=asked.shadow_agreement,
                serving_latency_ms_p99_max=asked.shadow_p99 or 0,
            )
        )
    return strategy


def _gate_of(asked: StrategyOptions) -> rollout_pb2.GatePolicy:
    return rollout_pb2.GatePolicy(
        min_inferences=asked.min_inferences,
        max_errors_per_mille=asked.max_errors_per_mille,
        max_failed_installs=asked.max_failed_installs,
        on_failure=(asked.on_failure or FailureAction.ROLLBACK).value,
        max_latency_ms_p95=asked.max_latency_p95 or 0,
        max_latency_ms_p99=asked.max_latency_p99 or 0,
        max_latency_p99_percent=asked.max_latency_p99_percent or 0,
        min_throughput_percent=asked.min_throughput_percent or 0,
        max_confidence_drift_per_mille=asked.max_confidence_drift or 0,
        max_class_drift_per_mille=asked.max_class_drift or 0,
        max_silent_per_mille=asked.max_silent,
        confidence_per_mille=asked.confidence,
        idle_timeout=_duration(asked.idle_timeout),
    )


def parse_window(written: str) -> rollout_pb2.MaintenanceWindow:
    """Return the window of 'SELECTOR; CRON; DURATION; TIME ZONE[; start]'; an empty selector binds every agent.

    Raises InvalidInputError; whether there is such a time zone or such a time, the controller judges.
    """
    parts = [part.strip() for part in written.split(";")]
    if len(parts) not in {4, 5}:
        raise _no_window(f"{written!r} has {len(parts)} parts")
    selector, cron, duration, time_zone = parts[:4]
    if len(cron.split()) != 5:
        raise _no_window(f"{cron!r} are not five cron fields")
    if not time_zone:
        raise _no_window("the time zone is missing")
    scopes = {"swap": rollout_pb2.MaintenanceWindow.SCOPE_SWAP, "start": rollout_pb2.MaintenanceWindow.SCOPE_START}
    scope = scopes.get(parts[4].lower()) if len(parts) == 5 else rollout_pb2.MaintenanceWindow.SCOPE_SWAP
    if scope is None:
        raise _no_window(f"{parts[4]!r} is neither 'swap' nor 'start'")
    try:
        open_for = parse_duration(duration)
    except ValueError as error:
        raise _no_window(str(error)) from error
    return rollout_pb2.MaintenanceWindow(
        selector=selector, cron=cron, duration=_duration(open_for), time_zone=time_zone, scope=scope
    )


def _no_window(message: str) -> InvalidInputError:
    return InvalidInputError(message, field="window", remedy=_WINDOW_REMEDY)


def _duration(duration: timedelta | None) -> Duration | None:
    if duration is None:
        return None
    message = Duration()
    message.FromTimedelta(duration)
    return message


def _with_file(options: StrategyOptions) -> StrategyOptions:
    """Return the options over those of the file that they name."""
    if options.strategy is None:
        return options
    said = {field.name: getattr(options, field.name) for field in fields(options)}
    return replace(_read(options.strategy), **{name: value for name, value in said.items() if value not in (None, ())})


_file_app = App(name="strategy", help_flags=[], version_flags=[], default_parameter=Parameter(negative=()))


@_file_app.default
def _hand_over(*, options: StrategyOptions = UNSAID) -> StrategyOptions:
    return options


def _read(path: Path) -> StrategyOptions:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES_MAX + 1)
        if len(text) > _FILE_BYTES_MAX:
            raise InvalidInputError(f"{path} is too large", field="strategy", remedy="name a strategy's TOML file")
        document = tomllib.loads(text.decode())
    except OSError as error:
        raise InvalidInputError(
            f"cannot read {path}: {error.strerror}", field="strategy", remedy="name a file that you may read"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not TOML: {error}", field="strategy", remedy="mend it there") from error
    words = [word for name, value in document.items() for word in _words(path, name, value)]
    try:
        _, bound, _ = _file_app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        text_of = " ".join(str(error).split()).rstrip(".")
        raise InvalidInputError(f"{path}: {text_of}", field="strategy", remedy="mend it there") from error
    read = bound.kwargs.get("options", UNSAID)
    assert isinstance(read, StrategyOptions), "the parser makes options of words"
    return read


_NAMES = frozenset(field.name.replace("_", "-") for field in fields(StrategyOptions)) - {"strategy"}


def _words(path: Path, name: str, value: Any) -> Iterator[str]:
    """Yield an entry of the file as it would stand on the command line."""
    option = name.replace("_", "-")
    if option not in _NAMES:
        raise InvalidInputError(
            f"{path}: {name!r} is no option of a strategy",
            field="strategy",
            remedy=f"use {', '.join(sorted(_NAMES))}",
        )
    match value:
        case True:
            yield f"--{option}"
        case False if option == "canary-per-device-class":
            yield f"--no-{option}"
        case False:
            return
        case list() if option in {"waves", "window"} and all(isinstance(item, str | int) for item in value):
            yield from _list_words(option, value)
        case str() | int() | float():
            yield f"--{option}={value}"
        case _:
            raise InvalidInputError(
                f"{path}: {name} is neither a text, a number nor a truth", field="strategy", remedy="mend it there"
            )


def _list_words(option: str, items: Sequence[str | int]) -> Iterator[str]:
    if option == "waves":
        yield f"--waves={','.join(map(str, items))}"
    else:
        yield from (f"--{option}={item}" for item in items)
