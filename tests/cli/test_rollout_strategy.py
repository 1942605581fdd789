"""How a rollout moves, as written on the command line and in a file."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from lineside.v1 import deployment_pb2, rollout_pb2, rollout_service_pb2

from controlplane.cli.rollout_strategy import UNSAID, StrategyOptions, parse_window, strategy_of
from controlplane.client import InvalidInputError
from tests.cli.conftest import Lineside
from tests.client.fake_controller import FakeController

START = ("rollouts", "start", "line-3", "--version", "2")
Window = rollout_pb2.MaintenanceWindow
WHOLE = rollout_pb2.RolloutStrategy(
    waves=["1", "100%"],
    bake=Duration(seconds=1800),
    canary_per_device_class=False,
    max_unavailable_per_line=1,
    approval=rollout_pb2.ApprovalPolicy(scope=rollout_pb2.ApprovalPolicy.SCOPE_EVERY_WAVE, second_person=True),
    windows=[
        Window(
            selector="site=suzhou",
            cron="0 2 * * SAT",
            duration=Duration(seconds=7200),
            time_zone="Asia/Shanghai",
            scope=Window.SCOPE_SWAP,
        ),
        Window(cron="0 6 * * *", duration=Duration(seconds=3600), time_zone="UTC", scope=Window.SCOPE_START),
    ],
    deadline=Duration(seconds=172800),
    install_timeout=Duration(seconds=600),
    offline_wait=Duration(seconds=300),
    pace=rollout_pb2.Pace(agents_per_minute=10, bytes_per_second_per_site=10_000_000),
    prefetch=True,
    shadow=rollout_pb2.ShadowPolicy(min_comparisons=500, min_agreement_per_mille=985, serving_latency_ms_p99_max=12.5),
    gate=rollout_pb2.GatePolicy(
        min_inferences=0,
        max_errors_per_mille=5,
        max_failed_installs=1,
        on_failure=rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE,
        max_latency_ms_p95=8,
        max_latency_ms_p99=25,
        max_latency_p99_percent=120,
        min_throughput_percent=90,
        max_confidence_drift_per_mille=100,
        max_class_drift_per_mille=50,
        max_silent_per_mille=0,
        confidence_per_mille=999,
        idle_timeout=Duration(seconds=600),
    ),
)
FILE = """
waves = ["1", "100%"]
bake = "30m"
canary-per-device-class = false
max-unavailable-per-line = 1
approval = "every-wave"
second-person = true
window = ["site=suzhou; 0 2 * * SAT; 2h; Asia/Shanghai", "; 0 6 * * *; 1h; UTC; start"]
deadline = "2d"
install-timeout = "10m"
offline-wait = "5m"
agents-per-minute = 10
bytes-per-second-per-site = "10MB"
prefetch = true
shadow = 500
shadow-agreement = "98.5%"
shadow-p99 = 12.5
min-inferences = 0
max-errors-per-mille = 5
max-failed-installs = 1
on-failure = "pause"
max-latency-p95 = 8
max-latency-p99 = 25.0
max-latency-p99-percent = 120
min-throughput-percent = 90
max-confidence-drift = "0.1"
max-class-drift = "5%"
max-silent = "0%"
confidence = "99.9%"
idle-timeout = "10m"
"""
WORDS = [
    *("--waves", "1,100%", "--bake", "30m", "--no-canary-per-device-class", "--max-unavailable-per-line", "1"),
    *("--approval", "every-wave", "--second-person", "--window", "site=suzhou; 0 2 * * SAT; 2h; Asia/Shanghai"),
    *("--window", "; 0 6 * * *; 1h; UTC; start", "--deadline", "2d", "--install-timeout", "10m"),
    *("--offline-wait", "5m", "--agents-per-minute", "10", "--bytes-per-second-per-site", "10MB", "--prefetch"),
    *("--shadow", "500", "--shadow-agreement", "98.5%", "--shadow-p99", "12.5", "--min-inferences", "0"),
    *("--max-errors-per-mille", "5", "--max-failed-installs", "1", "--on-failure", "pause"),
    *("--max-latency-p95", "8", "--max-latency-p99", "25", "--max-latency-p99-percent", "120"),
    *("--min-throughput-percent", "90", "--max-confidence-drift", "0.1", "--max-class-drift", "5%"),
    *("--max-silent", "0%", "--confidence", "99.9%", "--idle-timeout", "10m"),
]


@pytest.fixture(autouse=True)
def deployed(fake: FakeController) -> None:
    fake.deployments["deployments/line-3"] = deployment_pb2.Deployment(name="deployments/line-3", model="models/solar")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "night.toml"
    path.write_text(FILE)
    return path


def asked(fake: FakeController, method: str = "CreateRollout") -> Any:
    return fake.requests(method)[-1].rollout.strategy


def test_every_option_arrives(lineside: Lineside, fake: FakeController) -> None:
    assert lineside(*START, *WORDS).status == 0
    assert asked(fake) == WHOLE


def test_a_file_says_the_same_as_the_options(lineside: Lineside, fake: FakeController, written: Path) -> None:
    assert lineside(*START, "--strategy", str(written)).status == 0
    assert asked(fake) == WHOLE


def test_the_command_line_wins_over_the_file(lineside: Lineside, fake: FakeController, written: Path) -> None:
    words = ("--bake", "1m", "--window", "; 0 1 * * *; 1h; UTC", "--canary-per-device-class", "--min-inferences", "9")
    assert lineside(*START, "--strategy", str(written), *words).status == 0
    strategy = asked(fake)
    assert strategy.bake.seconds == 60
    assert [window.cron for window in strategy.windows] == ["0 1 * * *"]
    assert strategy.canary_per_device_class
    assert strategy.gate.min_inferences == 9
    assert strategy.deadline == WHOLE.deadline


def test_plan_and_rehearse_take_the_same_options(lineside: Lineside, fake: FakeController) -> None:
    fake.plans.append([rollout_service_pb2.PlanRolloutResponse(plan=rollout_service_pb2.RolloutPlan())])
    report = rollout_service_pb2.RehearsalReport(outcomes={"SUCCEEDED": 1})
    fake.rehearsals.append([rollout_service_pb2.RehearseRolloutResponse(report=report)])
    assert lineside("rollouts", "plan", "line-3", "--version", "2", *WORDS).status == 0
    assert lineside("rollouts", "rehearse", "line-3", "--version", "2", *WORDS).status == 0
    assert asked(fake, "PlanRollout") == asked(fake, "RehearseRollout") == WHOLE


def test_what_is_not_said_is_not_sent() -> None:
    strategy = strategy_of(UNSAID)
    assert list(strategy.waves) == ["100%"]
    assert {field.name for field, _ in strategy.ListFields()} == {"waves", "gate"}
    assert {field.name for field, _ in strategy.gate.ListFields()} == {"on_failure"}


def test_a_second_person_alone_is_asked_for_after_the_canary() -> None:
    approval = strategy_of(StrategyOptions(second_person=True)).approval
    assert approval.scope == rollout_pb2.ApprovalPolicy.SCOPE_AFTER_CANARY


@pytest.mark.parametrize(
    ("word", "number"),
    [("rule", 0), ("refuse", 1), ("queue", 2), ("supersede", 3)],
)
def test_what_to_do_with_another_rollout_arrives(
    lineside: Lineside, fake: FakeController, word: str, number: int
) -> None:
    lineside(*START, "--when-active", word)
    assert fake.requests("CreateRollout")[-1].when_active == number


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ("0 2 * * SAT", "1 parts"),
        ("site=a; 0 2 * * SAT; 2h; UTC; start; more", "6 parts"),
        ("site=a; 0 2 * *; 2h; UTC", "five cron fields"),
        ("site=a; 0 2 * * SAT; soon; UTC", "not a duration"),
        ("site=a; 0 2 * * SAT; 2h;", "time zone is missing"),
        ("site=a; 0 2 * * SAT; 2h; UTC; stop", "neither 'swap' nor 'start'"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_window(window)
    assert said in caught.value.message
    assert (caught.value.field, "Asia/Shanghai" in caught.value.remedy) == ("window", True)


def refusals() -> Iterator[tuple[str, str]]:
    yield "nonsense = 1", "'nonsense' is no option"
    yield 'strategy = "other.toml"', "'strategy' is no option"
    yield 'agents-per-minute = "many"', "--agents-per-minute"
    yield "agents-per-minute = 99999999999", "--agents-per-minute"
    yield "agents-per-minute = -1", "--agents-per-minute"
    yield 'max-silent = "2"', "not a share"
    yield 'approval = "perhaps"', "--approval"
    yield "bake = [1]", "bake is neither"
    yield "window = [[1]]", "window is neither"
    yield 'bake = "1h', "not TOML"
    yield 'window = "site=a"', "1 parts"


@pytest.mark.parametrize(("text", "said"), list(refusals()))
def test_a_file_that_cannot_be_is_refused(
    lineside: Lineside, fake: FakeController, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "bad.toml").write_text(text)
    outcome = lineside(*START, "--strategy", str(tmp_path / "bad.toml"))
    assert (outcome.status, outcome.out, fake.calls) == (2, "", [])
    assert said in outcome.err
    assert ";" in outcome.err, "there is a remedy"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--strategy", "no/such.toml"), "strategy: cannot read"),
        (("--shadow-agreement", "95%"), "shadow: a bound of a shadow run without one"),
        (("--agents-per-minute", "-1"), "--agents-per-minute"),
        (("--max-latency-p99", "-1"), "--max-latency-p99"),
        (("--max-silent", "101%"), "not a share"),
        (("--confidence", "99.99%"), "finer than a thousandth"),
        (("--bytes-per-second-per-site", "99999999TB"), "more than any disk"),
        (("--approval", "perhaps"), "--approval"),
        (("--when-active", "perhaps"), "--when-active"),
    ],
)
def test_options_that_cannot_be_are_usage(
    lineside: Lineside, fake: FakeController, words: tuple[str, ...], said: str
) -> None:
    outcome = lineside(*START, *words)
    assert (outcome.status, outcome.out, fake.calls) == (2, "", [])
    assert said in outcome.err


def test_a_duration_keeps_its_unit(lineside: Lineside, fake: FakeController) -> None:
    lineside(*START, "--bake", "1h30m")
    assert asked(fake).bake.ToTimedelta() == timedelta(minutes=90)
