"""`lineside deployments`: create, list, show, delete."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from lineside.v1 import deployment_pb2, slot_pb2

from controlplane.cli.agents import condition_columns
from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import DurationOption, duration_text, time_text
from controlplane.cli.result_options import NO_RESULT_OPTIONS, ResultOptions, result_policy_of, results_text
from controlplane.cli.sample_options import NO_SAMPLE_OPTIONS, SampleOptions, sample_policy_of, samples_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client.names import parse_reference, short

app = resource_app("deployments", "Standing intent: which model runs on which agents, and how.")


class Hint(Enum):
    """What a model is tuned for."""

    LATENCY = slot_pb2.PERFORMANCE_HINT_LATENCY
    THROUGHPUT = slot_pb2.PERFORMANCE_HINT_THROUGHPUT
    CUMULATIVE_THROUGHPUT = slot_pb2.PERFORMANCE_HINT_CUMULATIVE_THROUGHPUT


@app.command(
    help_epilogue="Example: lineside deployments create line-3 --model solar:1 --selector line=3 --hint THROUGHPUT"
)
def create(
    name: str,
    /,
    *,
    model: str,
    selector: str,
    hint: Hint = Hint.LATENCY,
    precision: str = "",
    device: Sequence[str] = (),
    swap_wait: DurationOption | None = None,
    priority: Annotated[int, Parameter(validator=Number(gte=-(1 << 31), lt=1 << 31))] = 0,
    allow_empty: bool = False,
    samples: SampleOptions = NO_SAMPLE_OPTIONS,
    results: ResultOptions = NO_RESULT_OPTIONS,
    session: SessionArgument,
) -> None:
    """Ask for a model on every agent that matches a selector, now and later.

    Parameters
    ----------
    name
        Id of the deployment.
    model
        NAME:VERSION, to which matching agents converge at once; NAME alone waits for the first rollout.
    selector
        Labels of the agents, as Kubernetes writes selectors: site=suzhou,line in (3,4).
    hint
        Tune for the time of one request, for requests a second, or for those of several devices at once.
    precision
        OpenVINO's inference precision, f32, bf16 or f16; else f32, or less where the version's golden files allow it.
    device
        A device that may be used, as OpenVINO names it; may be repeated; else every one.
    swap_wait
        How long a swap waits for applications that name their lot to begin the next, say 30s, so that no lot is judged
        by two versions; else it waits for nobody.
    priority
        Where deployments of one model match one agent, the highest holds it; two of equal priority are refused.
    allow_empty
        Accept a selector that matches no agent yet.
    """
    model_id, version = parse_reference(model, field="model")
    runtime = slot_pb2.RuntimePolicy(hint=hint.value, inference_precision=precision, devices=device)
    if swap_wait is not None:
        runtime.swap_wait.FromTimedelta(swap_wait)
    created = session.client.deployments.create(
        name,
        model=model_id,
        version=version,
        selector=selector,
        runtime_policy=runtime,
        sample_policy=sample_policy_of(samples),
        result_policy=result_policy_of(results),
        allow_empty=allow_empty,
        priority=priority,
    )
    if session.printer.json:
        session.printer.document(document_of(created))
    else:
        session.printer.line(short(created.name))


@app.command(name="list", help_epilogue="Example: lineside deployments list")
def list_(*, limit: int | None = None, session: SessionArgument) -> None:
    """List deployments by name.

    Parameters
    ----------
    limit
        At most this many.
    """
    deployments = session.client.deployments.list(limit=limit)
    session.printer.messages(deployments, _COLUMNS, none="no deployments; see `lineside deployments create --help`")


@app.command(help_epilogue="Example: lineside deployments show line-3")
def show(deployment: str, /, *, session: SessionArgument) -> None:
    """Show a deployment: its version, its policies, how many agents have converged.

    Parameters
    ----------
    deployment
        The deployment's id.
    """
    _show(session.printer, session.client.deployments.get(deployment))


@app.command(help_epilogue="Example: lineside deployments delete line-3")
def delete(deployment: str, /, *, session: SessionArgument) -> None:
    """End a deployment; its slots are unloaded. Refused while a rollout moves it.

    Parameters
    ----------
    deployment
        The deployment's id.
    """
    _show(session.printer, session.client.deployments.delete(deployment))


def _runs(deployment: deployment_pb2.Deployment) -> str:
    return short(deployment.model_version) if deployment.model_version else f"{short(deployment.model)}:-"


_COLUMNS: Sequence[Column[deployment_pb2.Deployment]] = (
    Column(header="DEPLOYMENT", cell=lambda deployment: short(deployment.name), whole=True),
    Column(header="RUNS", cell=_runs, whole=True),
    Column(header="CONVERGED", cell=lambda one: f"{one.converged_agents} of {one.matched_agents}"),
    Column(header="HINT", cell=lambda deployment: word(deployment.runtime_policy, "hint")),
    Column(header="ROLLOUT", cell=lambda deployment: short(deployment.active_rollout) or "-", whole=True),
    Column(header="SELECTOR", cell=lambda deployment: deployment.selector),
)


def _show(printer: Printer, deployment: deployment_pb2.Deployment) -> None:
    if printer.json:
        printer.document(document_of(deployment))
        return
    now, runtime = printer.now, deployment.runtime_policy
    printer.pairs(
        [
            ("deployment", short(deployment.name)),
            ("runs", _runs(deployment)),
            ("selector", deployment.selector),
            ("priority", str(deployment.priority)),
            ("converged", f"{deployment.converged_agents} of {deployment.matched_agents} agents"),
            ("rollout", short(deployment.active_rollout)),
            ("hint", word(runtime, "hint")),
            ("precision", runtime.inference_precision or "the device's choice"),
            ("devices", " ".join(runtime.devices) or "every one"),
            ("swap wait", duration_text(runtime.swap_wait.ToTimedelta())),
            ("samples", samples_text(deployment.sample_policy)),
            ("results", results_text(deployment.result_policy)),
            *_times(deployment, now),
        ]
    )
    printer.section("conditions", condition_columns(now), deployment.conditions)


def _times(deployment: deployment_pb2.Deployment, now: datetime) -> list[tuple[str, str]]:
    return [
        ("created", time_text(deployment.create_time, now=now)),
        ("changed", time_text(deployment.update_time, now=now)),
    ]
