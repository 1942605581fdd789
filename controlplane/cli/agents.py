"""`lineside agents`: list, show, explain, label, pin, unpin, revoke."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from lineside.v1 import agent_pb2, condition_pb2, slot_pb2

from controlplane.cli.devices import DEVICES, MEASUREMENTS, show_devices
from controlplane.cli.document import document_of, word
from controlplane.cli.explanation import show_explanation
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import bytes_text, labels_text, parse_labels, time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.names import parse_reference, short

app = resource_app("agents", "Look at the fleet; explain, label, pin and revoke agents.")


@app.command(name="list", help_epilogue="Example: lineside agents list --selector 'line in (3,4),station'")
def list_(*, selector: str = "", limit: int | None = None, session: SessionArgument) -> None:
    """List agents by name.

    Parameters
    ----------
    selector
        Only those whose labels match, as Kubernetes writes selectors.
    limit
        At most this many.
    """
    printer = session.printer
    agents = session.client.agents.list(selector=selector, limit=limit)
    printer.messages(agents, _columns(printer.now), none="no agents; see `lineside tokens create --help`")


@app.command(help_epilogue="Example: lineside agents show st-1")
def show(agent: str, /, *, devices: bool = False, session: SessionArgument) -> None:
    """Show an agent: its box, devices, slots and conditions.

    Parameters
    ----------
    agent
        The agent's id.
    devices
        Only devices, and for each slot what was measured on them and why one was chosen.
    """
    found = session.client.agents.get(agent)
    if devices:
        show_devices(session.printer, found)
    else:
        _show(session.printer, found)


@app.command(help_epilogue="Example: lineside agents explain st-1 --model solar")
def explain(agent: str, /, *, model: str = "", session: SessionArgument) -> None:
    """Say why an agent runs what it runs, and what would make it run something else.

    Parameters
    ----------
    agent
        The agent's id.
    model
        Only the slot of this model.
    """
    show_explanation(session.printer, session.client.agents.explain(agent, model=model))


@app.command(help_epilogue="Example: lineside agents label st-1 line=4 old-")
def label(agent: str, /, *labels: str, session: SessionArgument) -> None:
    """Set labels, written KEY=VALUE, and remove others, written KEY-. Deployments follow at once.

    Parameters
    ----------
    agent
        The agent's id.
    labels
        KEY=VALUE to set, KEY- to remove.
    """
    removed = [word for word in labels if word.endswith("-") and "=" not in word]
    try:
        wanted = parse_labels(word for word in labels if word not in removed)
    except ValueError as error:
        raise InvalidInputError(str(error), field="labels", remedy="or KEY- to remove it") from error
    if not labels or "-" in removed:
        raise InvalidInputError("no label is named", field="labels", remedy="write KEY=VALUE or KEY-")
    remove = [word.removesuffix("-") for word in removed]
    _show(session.printer, session.client.agents.update_labels(agent, set=wanted, remove=remove))


@app.command(help_epilogue="Example: lineside agents pin st-1 solar:1 --reason 'glare until the lamp is changed'")
def pin(agent: str, version: str, /, *, reason: str, session: SessionArgument) -> None:
    """Hold a slot of an agent on a version; rollouts leave it out until it is unpinned.

    Parameters
    ----------
    agent
        The agent's id.
    version
        NAME:VERSION.
    reason
        Why; whoever asks why the agent runs this is told.
    """
    model, number = parse_reference(version, field="version")
    if number is None:
        raise InvalidInputError(f"{version!r} names no version", field="version", remedy="write NAME:VERSION")
    _show(session.printer, session.client.agents.pin(agent, model=model, version=number, reason=reason))


@app.command(help_epilogue="Example: lineside agents unpin st-1 solar")
def unpin(agent: str, model: str, /, *, session: SessionArgument) -> None:
    """End a pin; the slot follows its deployment again.

    Parameters
    ----------
    agent
        The agent's id.
    model
        Model of the slot.
    """
    _show(session.printer, session.client.agents.unpin(agent, model=model))


@app.command(help_epilogue="Example: lineside agents revoke st-1")
def revoke(agent: str, /, *, session: SessionArgument) -> None:
    """Refuse an agent's certificates for good; a box that is to come back enrols under another name.

    Parameters
    ----------
    agent
        The agent's id.
    """
    _show(session.printer, session.client.agents.revoke(agent))


def _columns(now: datetime) -> Sequence[Column[agent_pb2.Agent]]:
    return (
        Column(header="AGENT", cell=lambda agent: short(agent.name), whole=True),
        Column(header="STATE", cell=lambda agent: word(agent, "state")),
        Column(header="LAST SYNC", cell=lambda agent: time_text(agent.last_sync_time, now=now)),
        Column(header="LABELS", cell=lambda agent: labels_text(agent.labels.items())),
        Column(header="DEVICES", cell=lambda agent: " ".join(device.device for device in agent.devices)),
        Column(header="SLOTS", cell=lambda agent: "\n".join(_slot(slot) for slot in agent.slots)),
    )


def _slot(slot: slot_pb2.ObservedSlot) -> str:
    """Return what a slot serves, and what it is at when it serves something else than it should."""
    serving = short(slot.serving_version) if slot.serving_version else f"{slot.slot}:-"
    where = f" on {slot.device}" if slot.device else ""
    state = word(slot, "state")
    settled = state == "SERVING" and slot.serving_version == slot.target_version
    return f"{serving}{where}" if settled else f"{serving}{where}, {state} {short(slot.target_version)}"


def _show(printer: Printer, agent: agent_pb2.Agent) -> None:
    if printer.json:
        printer.document(document_of(agent))
        return
    host, now = agent.host, printer.now
    printer.pairs(
        [
            ("agent", short(agent.name)),
            ("state", word(agent, "state")),
            ("labels", labels_text(agent.labels.items())),
            ("last sync", time_text(agent.last_sync_time, now=now)),
            ("enrolled", time_text(agent.create_time, now=now)),
            ("certificate ends", time_text(agent.certificate_expire_time, now=now)),
            ("generation", f"{agent.observed_generation} of {agent.desired_generation}"),
            *(_host(host) if agent.HasField("host") else ()),
            *(("pinned", _pin(pin, now)) for pin in agent.pins),
            *(_samples(agent.sample_counts) if agent.HasField("sample_counts") else ()),
        ]
    )
    printer.section("devices", DEVICES, agent.devices)
    for slot in agent.slots:
        _show_slot(printer, slot, now)
    printer.section("conditions", condition_columns(now), agent.conditions)


def _host(host: agent_pb2.Host) -> list[tuple[str, str]]:
    return [
        ("host", f"{host.hostname}, {host.os_release or host.os}, {host.architecture}"),
        ("processor", f"{host.cpu_model}, {host.cpu_count} logical"),
        ("memory", bytes_text(host.memory_bytes)),
        ("disk", f"{bytes_text(host.disk_free_bytes)} free of {bytes_text(host.disk_bytes)}"),
        ("versions", f"agent {host.agent_version}, OpenVINO {host.openvino_version}"),
    ]


def _samples(counts: slot_pb2.SampleCounts) -> list[tuple[str, str]]:
    """What became of inputs that were picked, since the agent's start."""
    kept = sum(counts.kept_counts.values())
    reasons = _counted({reason.lower(): count for reason, count in counts.kept_counts.items()})
    waiting = f"{counts.waiting_count}, {bytes_text(counts.waiting_bytes)}"
    return [
        ("samples kept", f"{kept}: {reasons}" if reasons else "none"),
        ("not kept", _counted(counts.skipped_counts) or "none"),
        ("waiting", waiting if counts.waiting_count else "none"),
    ]


def _counted(counts: Mapping[str, int]) -> str:
    """The most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {word}" for word, count in ordered if count)


def _show_slot(printer: Printer, slot: slot_pb2.ObservedSlot, now: datetime) -> None:
    prepared = short(slot.prefetched_version) or slot.prefetch_failure
    failure = f"{slot.failure_reason}: {slot.failure_message}" if slot.failure_reason else ""
    since = time_text(slot.serving_time, now=now)
    pairs = [
        ("", ""),
        (f"slot {slot.slot}", _slot(slot)),
        ("serving since", since + (", last known good from disk" if slot.last_known_good else "")),
        ("device chosen", slot.device_reason),
    ]
    printer.pairs([(label, value or " ") for label, value in pairs] + ([("failure", failure)] if failure else []))
    beside = [("prepared", prepared)] if prepared else []
    if slot.HasField("shadow"):
        beside.append(("shadow", _shadow(slot.shadow)))
    if beside:
        printer.pairs(beside)
    printer.section(f"measured for {slot.slot}", MEASUREMENTS, slot.measurements)


def _shadow(shadow: slot_pb2.ObservedShadow) -> str:
    why = f", {shadow.message}" if shadow.message else ""
    return f"{short(shadow.candidate_version)} {word(shadow, 'state')}, {shadow.compared_count} inputs compared{why}"


def _pin(pin: agent_pb2.Pin, now: datetime) -> str:
    when = time_text(pin.create_time, now=now)
    return f"{short(pin.model_version)} by {short(pin.creator)} {when}: {pin.reason}"


def condition_columns(now: datetime) -> Sequence[Column[condition_pb2.Condition]]:
    """Return how conditions of any resource are shown."""
    return (
        Column(header="CONDITION", cell=lambda condition: condition.type, whole=True),
        Column(header="STATE", cell=lambda condition: word(condition, "state")),
        Column(header="SINCE", cell=lambda condition: time_text(condition.transition_time, now=now)),
        Column(header="REASON", cell=lambda condition: condition.reason),
        Column(header="MESSAGE", cell=lambda condition: condition.message),
    )
