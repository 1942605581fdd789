"""Properties of the diff, and of applying it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.artifact import Artifact, ArtifactFile, ModelSignature
from agent.domain.device import DeviceChoice, PerformanceHint, RuntimePolicy
from agent.domain.reconcile import (
    Action,
    Adopt,
    EndShadow,
    Fetch,
    HeldShadow,
    Holding,
    Prepare,
    Prune,
    Purpose,
    StartShadow,
    Swap,
    Unload,
    candidates_of,
    diff,
    digests_of,
    prepared_key,
    shadow_of,
)
from agent.domain.slot import (
    CandidateVersion,
    DesiredSlot,
    DesiredState,
    ObservedSlot,
    SamplePolicy,
    ShadowRun,
    ShadowState,
    SlotState,
)

POLICY = SamplePolicy(random_fraction=0.1, confidence_below=0.5, budget_bytes_per_day=1000)
CHOICE = DeviceChoice(device="CPU", reason="the only one", measurements=())


def wanted(
    name: str = "cells",
    version: int = 1,
    *,
    offer: int = 0,
    hint: str = "LATENCY",
    prefetch: int = 0,
    shadow: int = 0,
) -> DesiredSlot:
    """Of these candidates; 0 means none."""
    file = ArtifactFile(path="m.xml", digest=f"sha256:{version + 1000:064x}", size_bytes=1)
    return DesiredSlot(
        slot=name,
        version=version,
        deployment="all",
        artifact=Artifact(digest=f"sha256:{version:064x}", files=(file,)),
        signature=ModelSignature(entry_path="m.xml", inputs=(), outputs=()),
        runtime_policy=RuntimePolicy(hint=PerformanceHint(hint)),
        sample_policy=POLICY,
        offer=offer,
        prefetch=candidate(prefetch) if prefetch else None,
        shadow=ShadowRun(candidate=candidate(shadow), comparisons_max=10) if shadow else None,
    )


def candidate(version: int) -> CandidateVersion:
    slot = wanted(version=version)
    return CandidateVersion(version=version, artifact=slot.artifact, signature=slot.signature)


def state(*slots: DesiredSlot, generation: int = 1) -> DesiredState:
    return DesiredState(generation=generation, slots=slots)


def serving(slot: DesiredSlot) -> ObservedSlot:
    return ObservedSlot(
        slot=slot.slot,
        serving_version=slot.version,
        target_version=slot.version,
        state=SlotState.SERVING,
        device_choice=CHOICE,
        offer=slot.offer,
        serving=slot,
    )


def settled(*slots: DesiredSlot) -> Holding:
    """The box that runs exactly these, with their candidates."""
    held = (*slots, *(each for slot in slots for each in candidates_of(slot)))
    return Holding(
        slots=tuple(serving(slot) for slot in slots),
        complete=frozenset(slot.artifact.digest for slot in held),
        stored=frozenset(slot.artifact.digest for slot in held),
        prepared=frozenset(prepared_key(slot) for slot in held),
        shadows=tuple(HeldShadow(candidate=each, state=ShadowState.RUNNING) for each in map(shadow_of, slots) if each),
    )


def apply(action: Action, holding: Holding) -> Holding:
    """A box on which everything succeeds."""
    match action:
        case Fetch(slot=slot):
            digest = slot.artifact.digest
            return replace(holding, complete=holding.complete | {digest}, stored=holding.stored | {digest})
        case Prepare(slot=slot):
            assert slot.artifact.digest in holding.complete, "measured before its bytes are there"
            return replace(holding, prepared=holding.prepared | {prepared_key(slot)})
        case Swap(slot=slot):
            assert slot.artifact.digest in holding.complete
            assert prepared_key(slot) in holding.prepared
            return replace(holding, slots=(*without(holding, slot.slot), serving(slot)))
        case Adopt(slot=slot):
            before = holding.slot(slot.slot)
            assert before is not None
            assert before.serving_version == slot.version
            return replace(holding, slots=(*without(holding, slot.slot), serving(slot)))
        case Unload(slot=name):
            return replace(holding, slots=without(holding, name))
        case Prune(keep=keep):
            return replace(holding, complete=holding.complete & keep, stored=holding.stored & keep)
        case StartShadow(slot=slot):
            each = shadow_of(slot)
            assert each is not None
            assert each.artifact.digest in holding.complete
            assert prepared_key(each) in holding.prepared
            assert holding.slot(slot.slot) is not None, "nothing to run beside"
            others = (held for held in holding.shadows if held.candidate.slot != slot.slot)
            return replace(holding, shadows=(*others, HeldShadow(candidate=each, state=ShadowState.RUNNING)))
        case EndShadow(slot=name):
            return replace(holding, shadows=tuple(held for held in holding.shadows if held.candidate.slot != name))


def without(holding: Holding, name: str) -> tuple[ObservedSlot, ...]:
    return tuple(slot for slot in holding.slots if slot.slot != name)


def apply_all(actions: tuple[Action, ...], holding: Holding) -> Holding:
    for action in actions:
        holding = apply(action, holding)
    return holding


slots = st.builds(
    wanted,
    st.sampled_from(["cells", "parts", "welds"]),
    st.integers(1, 4),
    offer=st.integers(0, 3),
    hint=st.sampled_from(["LATENCY", "THROUGHPUT"]),
    prefetch=st.integers(0, 4),
    shadow=st.integers(0, 4),
)
slot_sets = st.lists(slots, unique_by=lambda slot: slot.slot, max_size=3)
digests = st.frozensets(st.integers(1, 6).map(lambda number: f"sha256:{number:064x}"))


@st.composite
def holdings(draw: st.DrawFn) -> Holding:
    """Boxes in any state: some slots serve, some of them with a failed or unfinished target, bytes left over."""
    base = settled(*draw(slot_sets))
    complete = base.complete | draw(digests)
    observed = tuple(
        replace(
            slot,
            state=draw(st.sampled_from(list(SlotState))),
            target_version=draw(st.integers(1, 4)),
            offer=draw(st.integers(0, 3)),
        )
        for slot in base.slots
    )
    shadows = tuple(
        replace(
            held,
            state=draw(st.sampled_from(list(ShadowState))),
            candidate=replace(held.candidate, offer=draw(st.integers(0, 3))),
            compared=draw(st.integers(0, 20)),
        )
        for held in base.shadows
    )
    return replace(base, slots=observed, complete=complete, stored=complete | draw(digests), shadows=shadows)


@given(slot_sets)
def test_a_box_that_runs_what_is_desired_has_nothing_to_do(desired: list[DesiredSlot]) -> None:
    assert diff(state(*desired), settled(*desired)) == ()


@given(slot_sets, holdings())
def test_applying_the_diff_reaches_desired_and_twice_is_once(desired: list[DesiredSlot], holding: Holding) -> None:
    after = apply_all(diff(state(*desired), holding), holding)
    assert diff(state(*desired), after) == ()
    for slot in desired:
        observed = after.slot(slot.slot)
        assert observed is not None
        assert observed.serving == slot or observed.state is SlotState.FAILED
    assert {slot.slot for slot in after.slots} == {slot.slot for slot in desired}


@given(slot_sets, holdings())
def test_at_each_step_some_good_version_still_serves(desired: list[DesiredSlot], holding: Holding) -> None:
    names = {slot.slot for slot in desired}
    served = {slot.slot for slot in holding.slots if slot.serving is not None} & names
    for action in diff(state(*desired), holding):
        holding = apply(action, holding)
        assert served <= {slot.slot for slot in holding.slots if slot.serving is not None}
        for slot in holding.slots:
            if slot.serving is not None and slot.slot in names and isinstance(action, Prune):
                assert slot.serving.artifact.digest in holding.stored, "what serves lost its bytes"


@given(holdings(), slots)
def test_a_failed_version_is_tried_again_only_under_another_offer(holding: Holding, slot: DesiredSlot) -> None:
    failed = ObservedSlot(
        slot=slot.slot, state=SlotState.FAILED, target_version=slot.version, offer=slot.offer, failure_reason="X"
    )
    holding = replace(holding, slots=(*without(holding, slot.slot), failed))
    assert not _touches(diff(state(slot), holding), slot.slot)
    again = replace(slot, offer=slot.offer + 1)
    assert _touches(diff(state(again), holding), slot.slot)


@given(slot_sets, holdings())
def test_candidates_change_nothing_about_what_serves(desired: list[DesiredSlot], holding: Holding) -> None:
    """Leaving out every action for a candidate leaves exactly what would be done without candidates."""
    plain = [replace(slot, prefetch=None, shadow=None) for slot in desired]
    without_candidates = diff(state(*plain), replace(holding, shadows=()))
    kinds = (Fetch, Prepare, Swap, Unload)
    assert [_shape(each) for each in diff(state(*desired), holding) if isinstance(each, kinds) and _serves(each)] == [
        _shape(each) for each in without_candidates if isinstance(each, kinds)
    ]


@given(slot_sets, holdings())
def test_everything_for_candidates_comes_last(desired: list[DesiredSlot], holding: Holding) -> None:
    actions = [each for each in diff(state(*desired), holding) if not isinstance(each, EndShadow)]
    first = next((place for place, each in enumerate(actions) if not _serves(each)), len(actions))
    assert not any(_serves(each) for each in actions[first:])


@given(slot_sets, holdings())
def test_candidates_keep_their_bytes(desired: list[DesiredSlot], holding: Holding) -> None:
    for action in diff(state(*desired), holding):
        if isinstance(action, Prune):
            assert digests_of(each for slot in desired for each in candidates_of(slot)) <= action.keep


@given(slot_sets, holdings())
def test_no_shadow_run_begins_while_a_version_is_on_trial(desired: list[DesiredSlot], holding: Holding) -> None:
    actions = diff(state(*desired), replace(holding, on_trial=True))
    assert not any(isinstance(each, StartShadow) for each in actions)


@pytest.mark.parametrize(
    ("held", "again"),
    [
        (ShadowState.RUNNING, False),
        (ShadowState.COMPLETE, False),
        (ShadowState.STOPPED, True),
        (ShadowState.FAILED, True),
    ],
)
def test_another_offer_starts_a_run_that_stopped_or_failed(held: ShadowState, again: bool) -> None:
    slot = wanted(shadow=2)
    base = settled(slot)
    ended = replace(base, shadows=(replace(base.shadows[0], state=held, compared=10),))
    assert diff(state(slot), ended) == ()
    offered = replace(slot, offer=1)
    starts = any(isinstance(each, StartShadow) for each in diff(state(offered), ended))
    assert starts == again


def test_a_complete_run_goes_on_when_more_is_asked_of_it() -> None:
    slot = wanted(shadow=2)
    base = settled(slot)
    ended = replace(base, shadows=(replace(base.shadows[0], state=ShadowState.COMPLETE, compared=9),))
    assert [type(each) for each in diff(state(slot), ended)] == [StartShadow]


def test_a_run_ends_first_when_its_candidate_is_to_serve() -> None:
    before, after = wanted(version=1, shadow=2), wanted(version=2)
    assert [type(each) for each in diff(state(after), settled(before))][:2] == [EndShadow, Swap]


def _serves(action: Action) -> bool:
    match action:
        case Fetch(purpose=purpose) | Prepare(purpose=purpose):
            return purpose is Purpose.SERVE
        case StartShadow():
            return False
        case _:
            return True


def _shape(action: Action) -> tuple[str, str, int]:
    slot = getattr(action, "slot", "")
    return (type(action).__name__, slot if isinstance(slot, str) else slot.slot, getattr(slot, "version", 0))


def _touches(actions: tuple[Action, ...], name: str) -> bool:
    return any(
        isinstance(action, Fetch | Prepare | Swap | Adopt) and action.slot.slot == name and _serves(action)
        for action in actions
    )


def test_a_changed_sample_policy_is_adopted_without_a_load() -> None:
    before, after = wanted(), replace(wanted(), sample_policy=replace(POLICY, random_fraction=0.5))
    assert diff(state(after), settled(before)) == (Adopt(slot=after),)


def test_a_changed_hint_is_prepared_and_swapped_without_a_download() -> None:
    before, after = wanted(hint="LATENCY"), wanted(hint="THROUGHPUT")
    assert diff(state(after), settled(before)) == (Prepare(slot=after), Swap(slot=after))


def test_going_back_to_what_serves_after_a_failed_target_needs_no_load() -> None:
    old = wanted(version=1)
    failed = replace(serving(old), state=SlotState.FAILED, target_version=2, failure_reason="COMPILE_FAILED")
    holding = replace(settled(old), slots=(failed,))
    assert diff(state(old, generation=3), holding) == (Adopt(slot=old),)


def test_what_a_failed_target_leaves_serving_keeps_its_bytes() -> None:
    old, new = wanted(version=1), wanted(version=2)
    failed = replace(serving(old), state=SlotState.FAILED, target_version=2)
    holding = replace(settled(old), slots=(failed,))
    assert diff(state(new, generation=2), holding) == ()


def test_nothing_is_pruned_before_anything_was_asked_for() -> None:
    assert diff(DesiredState(), replace(settled(), stored=frozenset({"sha256:x"}))) == ()


def test_what_may_have_to_serve_again_keeps_its_bytes() -> None:
    new, old = wanted(version=2), wanted(version=1)
    holding = settled(new)
    stored = replace(holding, stored=holding.stored | {old.artifact.digest})
    assert [type(action) for action in diff(state(new), stored)] == [Prune]
    assert diff(state(new), replace(stored, fallbacks=(old,))) == ()
