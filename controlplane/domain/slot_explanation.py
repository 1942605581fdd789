"""Why a slot should run what it should: the rules of `assignment`, told in the order in which they apply."""

from collections.abc import Iterable, Mapping, Sequence

from controlplane.domain.admission import HoldReason
from controlplane.domain.assignment import Place, find_contenders, find_moves, holders
from controlplane.domain.deployment import Deployment
from controlplane.domain.explanation import Account, Case, SlotExplanation
from controlplane.domain.ids import ModelId
from controlplane.domain.report_explanation import explain_report
from controlplane.domain.rollout import (
    WAITS_FOR_APPROVAL,
    WAITS_FOR_WINDOW,
    Rollout,
    RolloutState,
    Wave,
    WaveState,
)
from controlplane.domain.selector import Requirement, facts, parse_selector


def explain(case: Case, model_id: ModelId | None = None) -> tuple[SlotExplanation, ...]:
    """Return why each slot of the agent runs what it runs, of one model or of all, by slot.

    An agent without any slot is told why not of every model that is deployed somewhere; of a model that is asked for
    there always is an answer.
    """
    contenders = find_contenders([case.record], case.standing.deployments).get(case.record.agent.id, ())
    models = [model_id] if model_id is not None else sorted(_models(case, contenders))
    return tuple(_explain_slot(case, model, contenders) for model in models)


def _models(case: Case, contenders: Iterable[Deployment]) -> set[ModelId]:
    observation, stored = case.record.observation, case.standing.stored.get(case.record.agent.id)
    observed = {slot.slot for slot in observation.observed.slots} if observation is not None else set()
    told = {slot.slot for slot in stored.slots} if stored is not None else set()
    pinned = {pin.model_id for pin in case.standing.pins if pin.agent_id == case.record.agent.id}
    found = observed | told | pinned | {deployment.model_id for deployment in contenders}
    return found or {deployment.model_id for deployment in case.standing.deployments}


def _explain_slot(case: Case, model_id: ModelId, contenders: Sequence[Deployment]) -> SlotExplanation:
    account = Account()
    agent_id = case.record.agent.id
    holder = holders(contenders).get(model_id)
    stored = case.standing.stored.get(agent_id)
    place: Place | None = None
    if case.record.agent.revoked:
        account.tell("AGENT_REVOKED", f"agents/{agent_id} is revoked: it is told nothing any more")
        account.advise("ENROL_ANEW", "enrol the box under another name: a revocation is for good")
        desired = stored.version_of(model_id) if stored is not None else None
    elif holder is None:
        _explain_no_deployment(case, model_id, account)
        desired = None
    else:
        place = _place(case, holder)
        desired = place.version()
        _explain_holder(case, holder, contenders, account)
        _explain_version(case, place, account)
    explain_report(case, model_id, desired, place, account)
    observation = case.record.observation
    observed = observation.observed.slot(model_id) if observation is not None else None
    return SlotExplanation(
        slot=model_id,
        desired_version=desired,
        serving_version=(observed.serving_version or None) if observed is not None else None,
        deployment_id=holder.id if holder is not None else None,
        rollout_id=place.move.rollout.id if place is not None and place.move is not None else None,
        because=tuple(account.because),
        would_change=tuple(account.would_change),
    )


def _place(case: Case, holder: Deployment) -> Place:
    agent_id, standing = case.record.agent.id, case.standing
    pins = {(pin.agent_id, pin.model_id): pin for pin in standing.pins}
    return Place(
        record=case.record,
        deployment=holder,
        move=find_moves(standing.rollouts).get(holder.id),
        pin=pins.get((agent_id, holder.model_id)),
        stored=standing.stored.get(agent_id),
        yanked=standing.yanked,
    )


def _explain_no_deployment(case: Case, model_id: ModelId, account: Account) -> None:
    agent_id, labels = case.record.agent.id, facts(case.record)
    candidates = sorted(
        (one for one in case.standing.deployments if one.model_id == model_id),
        key=lambda one: (len(_missed(one, labels)), one.id),
    )
    if not candidates:
        account.tell("NO_DEPLOYMENT_MATCHES", f"there is no deployment of models/{model_id}")
        account.advise(
            "CREATE_DEPLOYMENT",
            f"`lineside deployments create NAME --model {model_id} --selector agent={agent_id}` gives it a slot",
        )
        return
    nearest = candidates[0]
    missed = _missed(nearest, labels)
    told = "; ".join(f"{requirement} fails, it has {_found_text(requirement.key, labels)}" for requirement in missed)
    account.tell(
        "NO_DEPLOYMENT_MATCHES",
        f"no deployment of models/{model_id} matches it; the nearest is deployments/{nearest.id} with "
        f"{nearest.selector}: {told}",
    )
    account.advise(
        "LABEL_AGENT",
        f"`lineside agents label {agent_id} KEY=VALUE` so that {', '.join(map(str, missed))} holds gives it to "
        f"deployments/{nearest.id}; a fact of the box, such as os or device.npu, changes with the box alone",
    )


def _missed(deployment: Deployment, labels: Mapping[str, str]) -> tuple[Requirement, ...]:
    selector = parse_selector(deployment.selector, field="selector")
    return tuple(requirement for requirement in selector.requirements if not requirement.matches(labels))


def _found_text(key: str, labels: Mapping[str, str]) -> str:
    return f"{key}={labels[key]}" if key in labels else f"no {key}"


def _explain_holder(case: Case, holder: Deployment, contenders: Iterable[Deployment], account: Account) -> None:
    labels = facts(case.record)
    selector = parse_selector(holder.selector, field="selector")
    seen = ", ".join(
        _found_text(key, labels) for key in dict.fromkeys(requirement.key for requirement in selector.requirements)
    )
    account.tell("SELECTOR_MATCHES", f"deployments/{holder.id} asks for {holder.selector}, and it has {seen}")
    others = [one for one in contenders if one.model_id == holder.model_id and one.id != holder.id]
    for other in others:
        if other.priority == holder.priority:
            why = f"of equal priority {holder.priority} the older holds it"
        else:
            why = f"priority {holder.priority} is above {other.priority}"
        account.tell("HELD_BY_PRIORITY", f"deployments/{other.id} matches it too, and does not hold it: {why}")


def _explain_version(case: Case, place: Place, account: Account) -> None:
    intended = place.intended_version()
    if place.pin is not None:
        pin = place.pin
        account.tell(
            "PINNED",
            f"{pin.actor} pinned it at version {pin.version} on {pin.create_time:%Y-%m-%d %H:%M} UTC: {pin.reason}; "
            "rollouts leave it out",
        )
        account.advise(
            "UNPIN", f"`lineside agents unpin {place.agent_id} {place.model_id}` lets it follow its deployment"
        )
    else:
        if place.move is not None:
            _explain_move(case, place, place.move.rollout, account)
        if not place.is_exposed or (place.move is not None and place.move.rollout.state is RolloutState.ROLLING_BACK):
            _explain_standing_version(place, account)
    _explain_yank(place, intended, account)
    _explain_queue(case, place, account)
    if place.pin is None and place.move is None:
        account.advise(
            "START_ROLLOUT", f"`lineside rollouts start {place.deployment.id} --version N` moves it with its deployment"
        )


def _explain_standing_version(place: Place, account: Account) -> None:
    deployment = place.deployment
    kept = deployment.kept_versions.get(place.agent_id)
    if kept is not None:
        account.tell(
            "KEPT",
            f"an ended rollout left it at version {kept} on purpose; deployments/{deployment.id} is at "
            f"{_version_text(deployment.version)}",
        )
        return
    if deployment.version is None:
        account.tell("DEPLOYMENT_VERSION", f"deployments/{deployment.id} has no version before its first rollout")
    else:
        account.tell("DEPLOYMENT_VERSION", f"deployments/{deployment.id} is at version {deployment.version}")


def _explain_yank(place: Place, intended: int | None, account: Account) -> None:
    if intended is None or not place.is_yanked(intended):
        return
    has = place.version()
    if has == intended:
        outcome = "it has it already and goes on"
    elif has is None:
        outcome = "it is not newly given, so it has no slot"
    else:
        outcome = f"it is not newly given, so it stays at version {has}"
    account.tell("VERSION_YANKED", f"models/{place.model_id}/versions/{intended} is yanked: {outcome}")
    account.advise(
        "LEAVE_VERSION",
        f"`lineside rollouts start {place.deployment.id} --version N` moves to another version; "
        f"`lineside models unyank {place.model_id}:{intended}` allows this one again",
    )


def _explain_queue(case: Case, place: Place, account: Account) -> None:
    for rollout in case.queued:
        if rollout.deployment_id == place.deployment.id:
            account.tell(
                "ROLLOUT_QUEUED",
                f"rollouts/{rollout.id} to version {rollout.target_version} waits until the one before it has ended",
            )


def _explain_move(case: Case, place: Place, rollout: Rollout, account: Account) -> None:
    name, target = f"rollouts/{rollout.id}", rollout.target_version
    wave = next((wave for wave in rollout.waves if place.agent_id in wave.agents), None)
    if rollout.state is RolloutState.ROLLING_BACK:
        deed = "was given to it and is taken back" if place.is_exposed else "was not given to it"
        account.tell("ROLLOUT_RETURNS", f"{name} ends: version {target} {deed}; {rollout.reason}: {rollout.message}")
        account.advise("WAIT", f"`lineside rollouts watch {rollout.id}` shows how far the return is")
        return
    if place.is_exposed:
        released = [one for each in rollout.waves for one in each.releases if one.agent_id == place.agent_id]
        account.tell(
            "ROLLOUT_RELEASED",
            f"{name} gave it version {target} at {released[-1].time:%Y-%m-%d %H:%M:%S} UTC"
            + (f", in {_wave_text(rollout, wave)}" if wave is not None else ""),
        )
        account.advise("ROLL_BACK", f"`lineside rollouts rollback {rollout.id}` returns every target of it")
        return
    _explain_wait(case, place, rollout, wave, account)
    _advise_state(rollout, account)


def _explain_wait(case: Case, place: Place, rollout: Rollout, wave: Wave | None, account: Account) -> None:
    name, target = f"rollouts/{rollout.id}", rollout.target_version
    hold = case.holds.get(rollout.id)
    if wave is None:
        account.tell(
            "LATE_JOINER",
            f"it came to deployments/{rollout.deployment_id} after {name} was planned: it joins the last wave",
        )
    elif wave.state is WaveState.SHADOWING:
        account.tell(
            "SHADOWS", f"{name} has it run version {target} beside the serving one, answering nothing, before its wave"
        )
    elif wave.state is WaveState.PENDING:
        account.tell(
            "WAVE_NOT_ADMITTED",
            f"{name} moves to version {target}, and has not admitted its {_wave_text(rollout, wave)}: "
            f"{rollout.reason}: {rollout.message}",
        )
    else:
        why = f"{hold.reason}: it {hold.message}" if hold is not None else f"{rollout.reason}: {rollout.message}"
        account.tell("WAITS_IN_WAVE", f"{name} admitted its {_wave_text(rollout, wave)}, and not yet it: {why}")
        if hold is not None and hold.reason is HoldReason.OUT_OF_REACH:
            account.advise("BRING_BACK", f"start the agent or mend its network: {name} releases it when it is heard")
    prepared = place.move is not None and place.agent_id in place.move.prefetching
    if prepared:
        account.tell("PREPARES", f"{name} has it fetch and prepare version {target} meanwhile")


def _advise_state(rollout: Rollout, account: Account) -> None:
    name = rollout.id
    if rollout.state is RolloutState.PAUSED:
        account.advise("RESUME", f"`lineside rollouts resume {name}` goes on: it is paused, {rollout.message}")
        account.advise("ABORT", f"`lineside rollouts abort {name}` ends it")
    elif rollout.reason == WAITS_FOR_APPROVAL:
        account.advise("APPROVE", f"`lineside rollouts approve {name}` admits the wave: {rollout.message}")
    elif rollout.reason == WAITS_FOR_WINDOW:
        account.advise("WAIT", f"it goes on by itself: {rollout.message}")
    else:
        account.advise("WATCH", f"`lineside rollouts watch {name}` shows what it waits for; it goes on by itself")


def _wave_text(rollout: Rollout, wave: Wave) -> str:
    return f"wave {wave.index + 1} of {len(rollout.waves)}"


def _version_text(version: int | None) -> str:
    return f"version {version}" if version is not None else "no version"
