"""What operators ask of the rollout engine wrongly: strategies, plans, commands, pins, labels, yanks, the log."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    operator_service_pb2,
    operator_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)

from tests.e2e.refused_line import Act, Row

ROLLOUTS = rollout_service_pb2_grpc.RolloutServiceStub
AGENTS = agent_service_pb2_grpc.AgentServiceStub
MODELS = model_service_pb2_grpc.ModelServiceStub
AUDIT = audit_service_pb2_grpc.AuditServiceStub
OPERATORS = operator_service_pb2_grpc.OperatorServiceStub
REFUSE = rollout_service_pb2.CreateRolloutRequest.WHEN_ACTIVE_REFUSE

INVALID = partial(Row, code="INVALID_ARGUMENT", reason="FIELD_INVALID")
NOT_FOUND = partial(Row, code="NOT_FOUND", reason="RESOURCE_NOT_FOUND")
PRECONDITION = partial(Row, code="FAILED_PRECONDITION")


def seconds(number: float) -> Duration:
    whole = int(number)
    return Duration(seconds=whole, nanos=int((number - whole) * 1e9))


def wanted(*, deployment: str = "line-3", version: str = "models/m/versions/2", **strategy: Any) -> rollout_pb2.Rollout:
    """A rollout, right but for what is given."""
    return rollout_pb2.Rollout(
        deployment=f"deployments/{deployment}",
        target_version=version,
        strategy=rollout_pb2.RolloutStrategy(**({"waves": ["100%"]} | strategy)),
    )


def start(**fields: Any) -> Act:
    request = rollout_service_pb2.CreateRolloutRequest(rollout=wanted(**fields), when_active=REFUSE)
    return lambda line: line.operator(ROLLOUTS, "CreateRollout", request)


def plan(**fields: Any) -> Act:
    request = rollout_service_pb2.PlanRolloutRequest(rollout=wanted(**fields))
    return lambda line: line.operator(ROLLOUTS, "PlanRollout", request)


def rehearse(*, plays: int = 1, deployment: str = "line-3", assumed: Mapping[str, Any] | None = None) -> Act:
    request = rollout_service_pb2.RehearseRolloutRequest(
        rollout=wanted(deployment=deployment),
        plays=plays,
        assumptions=rollout_service_pb2.RehearsalAssumptions(**(assumed or {})),
    )
    return lambda line: line.operator(ROLLOUTS, "RehearseRollout", request)


def gate(**fields: Any) -> Act:
    return start(gate=rollout_pb2.GatePolicy(**fields))


def window(**fields: Any) -> Act:
    right: dict[str, Any] = {"cron": "0 2 * * SAT", "duration": seconds(3600), "time_zone": "Asia/Shanghai"}
    return start(windows=[rollout_pb2.MaintenanceWindow(**(right | fields))])


def command(method: str, *, name: str | None = None, **fields: Any) -> Act:
    """A command on the rollout that is paused, or on another."""
    kind = getattr(rollout_service_pb2, f"{method}Request")
    return lambda line: line.operator(ROLLOUTS, method, kind(name=name or line.facts["rollout"], **fields))


def pin(**fields: Any) -> Act:
    right = {"name": "agents/st-1", "model_version": "models/m/versions/1", "reason": "a test"}
    request = agent_service_pb2.PinAgentRequest(**(right | fields))
    return lambda line: line.operator(AGENTS, "PinAgent", request)


def unpin(**fields: Any) -> Act:
    request = agent_service_pb2.UnpinAgentRequest(**({"name": "agents/st-1", "model": "models/m"} | fields))
    return lambda line: line.operator(AGENTS, "UnpinAgent", request)


def label(**fields: Any) -> Act:
    request = agent_service_pb2.UpdateAgentLabelsRequest(**({"name": "agents/st-2"} | fields))
    return lambda line: line.operator(AGENTS, "UpdateAgentLabels", request)


def explain(**fields: Any) -> Act:
    request = agent_service_pb2.ExplainAgentRequest(**fields)
    return lambda line: line.operator(AGENTS, "ExplainAgent", request)


def yank(name: str, reason: str = "a test") -> Act:
    request = model_service_pb2.YankModelVersionRequest(name=name, reason=reason)
    return lambda line: line.operator(MODELS, "YankModelVersion", request)


def audit(**fields: Any) -> Act:
    request = audit_service_pb2.ListAuditEventsRequest(**fields)
    return lambda line: line.operator(AUDIT, "ListAuditEvents", request)


def operator(method: str, **fields: Any) -> Act:
    request = getattr(operator_service_pb2, f"{method}Request")(**fields)
    return lambda line: line.operator(OPERATORS, method, request)


def cli(*arguments: str) -> Act:
    return lambda line: line.command(*arguments)


STRATEGY = "rollout.strategy"
GATE = f"{STRATEGY}.gate"
NAN, INFINITE = float("nan"), float("inf")
NONE = rollout_pb2.ApprovalPolicy(second_person=True)
CENTURY = seconds(3e9)

STRATEGIES = [
    INVALID(what="line bound: negative", act=start(max_unavailable_per_line=-1), field="per_line", remedy="use 0 to"),
    INVALID(what="deadline: negative", act=start(deadline=seconds(-5)), field=f"{STRATEGY}.deadline", remedy="use 0"),
    INVALID(what="deadline: a century", act=start(deadline=CENTURY), field=f"{STRATEGY}.deadline", remedy="31536000 s"),
    INVALID(what="install: none", act=start(install_timeout=Duration()), field="install_timeout", remedy="use 1 to"),
    INVALID(what="offline: negative", act=start(offline_wait=seconds(-1)), field="offline_wait", remedy="use 0 to"),
    INVALID(
        what="pace: negative agents",
        act=start(pace=rollout_pb2.Pace(agents_per_minute=-1)),
        field=f"{STRATEGY}.pace.agents_per_minute",
        remedy="use 0 to",
    ),
    INVALID(
        what="pace: beyond all links",
        act=start(pace=rollout_pb2.Pace(bytes_per_second_per_site=1 << 62)),
        field=f"{STRATEGY}.pace.bytes_per_second_per_site",
        remedy="use 0 to",
    ),
    INVALID(what="approval: by a second person of none", act=start(approval=NONE), field="scope", remedy="canary"),
    INVALID(
        what="shadow: of nothing",
        act=start(shadow=rollout_pb2.ShadowPolicy()),
        field=f"{STRATEGY}.shadow.min_comparisons",
        remedy="use 1 to",
    ),
    INVALID(
        what="shadow: agreement above all",
        act=start(shadow=rollout_pb2.ShadowPolicy(min_comparisons=9, min_agreement_per_mille=1001)),
        field="min_agreement_per_mille",
        remedy="1000",
    ),
    INVALID(
        what="shadow: a bound that is no number",
        act=start(shadow=rollout_pb2.ShadowPolicy(min_comparisons=9, serving_latency_ms_p99_max=NAN)),
        field="serving_latency_ms_p99_max",
        remedy="ms",
    ),
    *(
        INVALID(what=f"gate: {field} of {number}", act=gate(**{field: number}), field=f"{GATE}.{field}", remedy="use ")
        for field, number in (
            ("max_latency_ms_p95", -1.0),
            ("max_latency_ms_p95", NAN),
            ("max_latency_ms_p99", INFINITE),
            ("max_latency_p99_percent", -1),
            ("max_latency_p99_percent", 1 << 30),
            ("min_throughput_percent", -1),
            ("max_confidence_drift_per_mille", 1001),
            ("max_class_drift_per_mille", -1),
            ("max_silent_per_mille", 1001),
            ("confidence_per_mille", 1000),
            ("confidence_per_mille", 0),
        )
    ),
    INVALID(what="gate: no idle time", act=gate(idle_timeout=Duration()), field=f"{GATE}.idle_timeout", remedy="use 1"),
    *(
        INVALID(what=f"window: cron {cron!r}", act=window(cron=cron), field="windows[0].cron", remedy="0 2 * * SUN")
        for cron in ("", "x", "* * * *", "61 * * * *", "0 2 31 2 *", "0 2 * * * *", "*/0 * * * *", "\0", "1," * 500)
    ),
    *(
        INVALID(what=f"window: zone {zone!r}", act=window(time_zone=zone), field="windows[0].time_zone", remedy="Asia")
        for zone in ("", "Mars/Phobos", "../../etc/passwd", "\0", "UTC+8")
    ),
    INVALID(what="window: no duration", act=window(duration=Duration()), field="windows[0].duration", remedy="s"),
    INVALID(what="window: a century", act=window(duration=CENTURY), field="windows[0].duration", remedy="2678400"),
    INVALID(
        what="window: selector",
        act=window(selector="line in ("),
        reason="SELECTOR_INVALID",
        field="windows[0].selector",
        remedy="')'",
    ),
    INVALID(
        what="window: too many",
        act=start(windows=[rollout_pb2.MaintenanceWindow(cron="0 2 * * *", time_zone="UTC")] * 99),
        field=f"{STRATEGY}.windows",
        remedy="at most 50",
    ),
]

PLANS = [
    NOT_FOUND(what="plan: an unknown deployment", act=plan(deployment="x"), field="rollout.deployment", remedy="List"),
    NOT_FOUND(
        what="plan: an unknown version",
        act=plan(version="models/m/versions/9"),
        field="rollout.target_version",
        remedy="publish it first",
    ),
    INVALID(what="plan: waves", act=plan(waves=["0"]), field=f"{STRATEGY}.waves", remedy="1%"),
    NOT_FOUND(
        what="rehearse: an unknown deployment",
        act=rehearse(deployment="x"),
        field="rollout.deployment",
        remedy="ListDeployments",
    ),
    INVALID(what="rehearse: negative plays", act=rehearse(plays=-1), field="plays", remedy="use 1 to"),
    INVALID(what="rehearse: plays without end", act=rehearse(plays=1 << 30), field="plays", remedy="use 1 to"),
    *(
        INVALID(
            what=f"rehearse: {field} of {number}",
            act=rehearse(assumed={field: number}),
            field=f"assumptions.{field}",
            remedy="use ",
        )
        for field, number in (
            ("message_loss_per_mille", 1001),
            ("offline_per_mille", -1),
            ("restarts_per_day", NAN),
            ("restarts_per_day", -1.0),
            ("install_failures_per_mille", 1001),
            ("errors_per_mille", -1),
            ("inferences_per_second", INFINITE),
            ("fetch_bytes_per_second", -1),
        )
    ),
    INVALID(
        what="rehearse: a negative outage",
        act=rehearse(assumed={"outage": seconds(-1)}),
        field="assumptions.outage",
        remedy="use ",
    ),
]

COMMANDS = [
    *(
        NOT_FOUND(
            what=f"{method} of no rollout",
            act=command(method, name="rollouts/x"),
            field="name",
            remedy="list the rollouts",
        )
        for method in (
            "GetRollout",
            "WatchRollout",
            "PauseRollout",
            "ResumeRollout",
            "AbortRollout",
            "RollbackRollout",
            "RetryRollout",
            "ApproveRollout",
        )
    ),
    INVALID(
        what="approve: no rollout's name", act=command("ApproveRollout", name="x"), field="name", remedy="{rollout}"
    ),
    PRECONDITION(
        what="approve what needs none",
        act=command("ApproveRollout"),
        reason="APPROVAL_NOT_DUE",
        field="name",
        remedy="WAITS_FOR_APPROVAL",
    ),
    PRECONDITION(
        what="approve a wave that is none",
        act=command("ApproveRollout", wave=-7),
        reason="APPROVAL_NOT_DUE",
        field="name",
        remedy="WAITS_FOR_APPROVAL",
    ),
    *(
        Row(
            what=f"{method} with a stale etag",
            act=command(method, etag="99"),
            code="ABORTED",
            reason="STALE_WRITE",
            field="etag",
            remedy="again",
        )
        for method in ("ApproveRollout", "RollbackRollout", "RetryRollout", "PauseRollout")
    ),
    Row(
        what="keep and revert by the command line",
        act=cli("rollouts", "abort", "r", "--keep", "--revert"),
        code="2",
        field="keep",
        remedy="leave one out",
    ),
    Row(
        what="wave 0 by the command line",
        act=cli("rollouts", "approve", "r", "--wave", "0"),
        code="2",
        field="wave",
        remedy="count waves from 1",
    ),
    Row(
        what="a window that is none by the command line",
        act=cli("rollouts", "plan", "line-3", "--version", "2", "--window", "at night"),
        code="2",
        field="window",
        remedy="SELECTOR; CRON; DURATION; TIME ZONE",
    ),
    Row(
        what="a strategy's file that does not exist by the command line",
        act=cli("rollouts", "start", "line-3", "--version", "2", "--strategy", "/nothing.toml"),
        code="2",
        field="strategy",
        remedy="that you may read",
    ),
]

INTERVENTIONS = [
    NOT_FOUND(what="pin: an unknown agent", act=pin(name="agents/x"), field="name", remedy="list the agents"),
    NOT_FOUND(
        what="pin: an unknown version",
        act=pin(model_version="models/m/versions/9"),
        field="model_version",
        remedy="publish it first",
    ),
    INVALID(what="pin: no version", act=pin(model_version="m:1"), field="model_version", remedy="versions/{number}"),
    INVALID(what="pin: no reason", act=pin(reason=" "), field="reason", remedy="say why"),
    INVALID(what="pin: a reason without end", act=pin(reason="x" * 5000), field="reason", remedy="1024"),
    INVALID(what="pin: NUL in the reason", act=pin(reason="x\0"), field="reason", remedy="say why"),
    PRECONDITION(
        what="pin: of no deployment",
        act=pin(model_version="models/n/versions/1"),
        reason="NOT_HELD",
        field="model_version",
        remedy="lineside agents explain st-1",
    ),
    NOT_FOUND(what="unpin what is not pinned", act=unpin(), field="model", remedy="name the model"),
    NOT_FOUND(
        what="label: an unknown agent", act=label(name="agents/x", set={"a": "b"}), field="name", remedy="list the "
    ),
    INVALID(what="label: nothing", act=label(), field="set", remedy="name a label"),
    INVALID(what="label: none", act=label(set={"li ne": "3"}), field="set", remedy="letters"),
    INVALID(what="label: a fact", act=label(set={"os": "x"}), field="set", remedy="another"),
    INVALID(what="label: both", act=label(set={"a": "b"}, remove=["a"]), field="remove", remedy="one of the two"),
    INVALID(what="label: remove a fact", act=label(remove=["os"]), field="remove", remedy="of the agent's labels"),
    INVALID(what="label: NUL", act=label(set={"line": "3\0"}), field="set", remedy="letters"),
    INVALID(what="label: too many", act=label(set={f"k{n}": "v" for n in range(99)}), field="set", remedy="64"),
    Row(
        what="label: a stale etag",
        act=label(set={"a": "b"}, etag="99"),
        code="ABORTED",
        reason="STALE_WRITE",
        field="etag",
        remedy="again",
    ),
    NOT_FOUND(what="explain: an unknown agent", act=explain(name="agents/x"), field="name", remedy="list the agents"),
    INVALID(what="explain: no model", act=explain(name="agents/st-1", model="m"), field="model", remedy="models/"),
    NOT_FOUND(
        what="explain: an unknown model",
        act=explain(name="agents/st-1", model="models/x"),
        field="model",
        remedy="list the models",
    ),
    NOT_FOUND(
        what="yank: an unknown version", act=yank("models/m/versions/9"), field="name", remedy="list the versions"
    ),
    INVALID(what="yank: no reason", act=yank("models/m/versions/2", reason=""), field="reason", remedy="say why"),
    INVALID(what="yank: a model", act=yank("models/m"), field="name", remedy="versions/{number}"),
]

RECORDS = [
    INVALID(what="log: no actor", act=audit(actor="anna"), field="actor", remedy="operators/"),
    INVALID(what="log: no resource", act=audit(resource="r1"), field="resource", remedy="rollouts/"),
    INVALID(what="log: no action", act=audit(action="\0"), field="action", remedy="wave.admit"),
    INVALID(
        what="log: a time outside of the calendar",
        act=audit(start_time=Timestamp(seconds=1 << 60)),
        field="start_time",
        remedy="1970",
    ),
    INVALID(what="log: a negative page", act=audit(page_size=-1), field="page_size", remedy="0"),
    Row(
        what="log: a page token",
        act=audit(page_token="x"),
        code="INVALID_ARGUMENT",
        reason="PAGE_TOKEN_INVALID",
        field="page_token",
        remedy="unchanged",
    ),
    Row(
        what="log: a resource by the command line",
        act=cli("audit", "list", "--resource", "r1"),
        code="2",
        field="resource",
        remedy="rollouts/r1",
    ),
    INVALID(what="operator: no name", act=operator("CreateOperator", operator_id="A B"), field="id", remedy="lower"),
    Row(
        what="operator: a name that is taken",
        act=operator("CreateOperator", operator_id="admin"),
        code="ALREADY_EXISTS",
        reason="RESOURCE_EXISTS",
        field="operator_id",
        remedy="another name",
    ),
    NOT_FOUND(
        what="operator: an unknown one",
        act=operator("RevokeOperator", name="operators/x"),
        field="name",
        remedy="list the ",
    ),
    PRECONDITION(
        what="operator: the last one",
        act=operator("RevokeOperator", name="operators/admin"),
        reason="LAST_OPERATOR",
        field="name",
        remedy="create another one",
    ),
]

ROWS = (*STRATEGIES, *PLANS, *COMMANDS, *INTERVENTIONS, *RECORDS)
