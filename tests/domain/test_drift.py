"""Drift: what is flagged, what is not, and how often that is wrong."""

import random
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from typing import Any

import pytest

from controlplane.app.drift import POLICY
from controlplane.domain.audit import Happening
from controlplane.domain.drift import Drift, DriftState, begin, condition, moved, relearn, take
from controlplane.domain.drift_evidence import Check, Counts, StatisticTest, add_block, log_stake, start_tests
from controlplane.domain.drift_slot import follow
from controlplane.domain.evidence import Histogram, MetricWindow
from controlplane.domain.interval import share_interval
from tests.support.drifting import BINS, Draw, Image, Line, fast_counts, shifted, usual
from tests.support.factories import NOW, after_seconds, make_window

VERSIONS_MAX = 4
STRETCHES_MAX = 100


def look(drift: Drift | None, *windows: MetricWindow) -> Drift:
    """The drift after these windows of one version."""
    for window in windows:
        drift = take(drift if drift is not None else begin(window, now=NOW), [window], POLICY, now=NOW)
    assert drift is not None
    return drift


def learned(line: Line, draw: Draw = usual) -> Drift:
    drift = look(None, line.window(draw))
    while drift.state is DriftState.LEARNING:
        drift = look(drift, line.window(draw))
    return drift


def images_until_flagged(drift: Drift, line: Line, draw: Draw, *, most: int) -> int:
    before = drift.inference_count
    while drift.state is DriftState.STEADY and drift.inference_count - before < most:
        assert drift.log_evidence < drift.log_needed(POLICY), "it is flagged as soon as the evidence is enough"
        drift = look(drift, line.window(draw))
    assert drift.log_evidence >= drift.log_needed(POLICY), "it is not flagged before"
    assert drift.state is DriftState.DRIFTED, f"not flagged within {most} images"
    return drift.inference_count - before


def test_the_first_inferences_are_the_reference() -> None:
    line = Line()
    drift = look(None, *line.windows(9))
    assert (drift.state, drift.reference_count) == (DriftState.LEARNING, 450)
    drift = learned(line)
    assert drift.state is DriftState.STEADY
    assert POLICY.reference_count <= drift.reference_count < POLICY.reference_count + line.size
    assert drift.start_time == after_seconds(2.0 * 10)
    assert set(drift.tests) == {"labels", "confidence", "mean", "sharpness"}


@pytest.mark.parametrize("seed", range(8))
def test_a_shift_is_flagged_within_some_hundred_images(seed: int) -> None:
    line = Line(seed=seed)
    drift = look(learned(line), *line.windows(100))
    assert images_until_flagged(drift, line, shifted(0.06), most=400) > 0


def test_what_moved_is_named_with_its_distance() -> None:
    line = Line()
    drift = look(learned(line), *line.windows(10))
    while drift.state is not DriftState.DRIFTED:
        drift = look(drift, line.window(shifted(0.2)))
    drift = look(drift, *line.windows(4, shifted(0.2)))
    first, *others = moved(drift, POLICY)
    assert (first.name, first.drifted) == ("sharpness", True)
    assert first.distance > 0.4 > first.tolerated
    assert [one.drifted for one in others] == [False] * 3
    assert "sharpness" in drift.message
    found = condition([drift])
    assert found is not None
    assert (found.type, found.transition_time) == ("InputsDrifted", drift.transition_time)


def test_a_mix_of_labels_that_changes_is_flagged() -> None:
    line = Line()

    def bad(rng: random.Random) -> Image:
        image = usual(rng)
        image.label = "bad" if rng.random() < 0.5 else "good"
        return image

    drift = learned(line)
    while drift.state is DriftState.STEADY and line.batch < 40:
        drift = look(drift, line.window(bad))
    assert [one.name for one in moved(drift, POLICY) if one.drifted] == ["labels"]


def test_a_label_that_was_never_there_is_flagged() -> None:
    line = Line()

    def new(rng: random.Random) -> Image:
        image = usual(rng)
        image.label = "crack" if rng.random() < 0.4 else image.label
        return image

    drift = learned(line)
    while drift.state is DriftState.STEADY and line.batch < 60:
        drift = look(drift, line.window(new))
    assert [one.name for one in moved(drift, POLICY) if one.drifted] == ["labels"]


def test_what_wobbles_within_the_tolerance_is_no_drift() -> None:
    line = Line(seed=3)
    drift = learned(line)
    for _ in range(200):
        # Two in a hundred more of the cells are far off, and then as many less.
        for share in (0.02, 0.0):

            def draw(rng: random.Random, share: float = share) -> Image:
                image = usual(rng)
                image.statistics["sharpness"] += 0.3 * (rng.random() < share)
                return image

            drift = look(drift, line.window(draw))
    assert drift.state is DriftState.STEADY
    assert drift.inference_count > 20_000


def test_stationary_streams_are_not_flagged() -> None:
    """The stated rate is 1 in 1,000: of 10 streams of 100,000 images one is flagged by chance in one case of 100."""
    assert POLICY.false_alarm == 0.001
    brightness = fast_counts([1 / (1 + abs(place - 12)) ** 2 for place in range(BINS)])
    confidence = fast_counts([0] * 10 + [1, 1, 1, 2, 3, 4, 6, 9, 20, 40])
    for seed in range(10):
        rng, drift = random.Random(seed), None
        for batch in range(1000):
            bad = sum(rng.random() < 0.1 for _ in range(100))
            window = make_window(
                batch=batch,
                inference_count=100,
                error_count=0,
                confidence_histogram=confidence(rng, 100),
                label_counts={"good": 100 - bad, "bad": bad},
                input_statistics={"mean": Histogram(low=0.0, high=1.0, bin_counts=brightness(rng, 100))},
            )
            drift = look(drift, window)
        assert drift is not None
        assert (drift.inference_count, drift.state, drift.episode_count) == (100_000, DriftState.STEADY, 0)


def test_a_share_at_the_very_edge_of_its_band_is_flagged_no_more_often_than_stated() -> None:
    """Nothing is kept in reserve here: no tolerance, no error of the reference. Of 300 streams at a rate of 0.1 more
    than 48 are flagged by chance in less than one case of 1,000."""
    streams, blocks, rate, edge = 300, 300, 0.1, 0.3
    flagged = 0
    for seed in range(streams):
        rng = random.Random(seed)
        test = StatisticTest(dispersion=1.0, checks=(Check(event=0, share=0.2, low=0.0, high=edge),))
        for number in range(1, blocks + 1):
            hits = sum(rng.random() < edge for _ in range(25))
            test = add_block(test, Counts(bins=(hits, 25 - hits)), log_stake=log_stake(number))
            if test.log_evidence(test.bets) >= -log(rate):
                flagged += 1
                break
    assert 0 < flagged <= 48


def test_the_band_holds_the_true_share() -> None:
    """All shares of a reference together, at a rate of 0.1: of 200 references more than 34 miss one by chance in less
    than one case of 1,000."""
    weights = [1, 2, 4, 8, 8, 4, 2, 1]
    shares = [sum(weights[: place + 1]) / sum(weights) for place in range(7)]
    draw, missed = fast_counts(weights), 0
    for seed in range(200):
        rng = random.Random(seed)
        blocks = [{"mean": Counts(bins=draw(rng, 25))} for _ in range(20)]
        test = start_tests(blocks, tolerance=0.0, miss=0.1)["mean"]
        missed += any(not check.low <= shares[check.event] <= check.high for check in test.checks)
    assert missed <= 34


def test_the_bands_share_their_misses_and_add_the_tolerance() -> None:
    blocks = [{"labels": Counts(bins=(5, 20), labels=("bad", "good")), "mean": Counts(bins=(5, 15, 5))}] * 4
    check = start_tests(blocks, tolerance=0.1, miss=0.1)["labels"].checks[0]
    known = share_interval(20, 100, limit=0.5, miss=0.1 / 4)
    assert (check.low, check.high) == (max(0.0, known.low - 0.1), known.high + 0.1)


def test_clustered_streams_are_not_flagged() -> None:
    """Lots of 50 cells that look alike: independent inferences would vary far less from lot to lot."""
    flagged = 0
    for seed in range(10):
        line = Line(seed=seed)
        drift: Drift | None = None
        for _ in range(200):
            lot = line.rng.gauss(0.0, 0.02)
            drift = look(drift, line.window(shifted(lot)))
        assert drift is not None
        assert drift.tests["sharpness"].dispersion > 2
        flagged += drift.episode_count > 0 or drift.state is DriftState.DRIFTED
    assert flagged == 0


def test_it_ends_when_the_recent_inferences_lie_within_the_band_again() -> None:
    line = Line()
    drift = learned(line)
    while drift.state is not DriftState.DRIFTED:
        drift = look(drift, line.window(shifted(0.2)))
    needed = drift.log_needed(POLICY)
    drift = look(drift, *line.windows(20, shifted(0.2)))
    assert drift.state is DriftState.DRIFTED
    drift = look(drift, *line.windows(8))
    assert (drift.state, drift.episode_count) == (DriftState.STEADY, 1)
    assert drift.log_needed(POLICY) > needed, "each further episode has a smaller part of the false alarms"
    assert images_until_flagged(drift, line, shifted(0.2), most=400) > 0


def test_an_idle_slot_is_not_flagged() -> None:
    line = Line()
    drift = learned(line)
    idle = make_window(
        batch=99,
        inference_count=0,
        error_count=0,
        refused_count=7,
        confidence_histogram=(),
        end_time=after_seconds(1e6),
    )
    assert look(drift, idle) == drift
    failed = make_window(batch=100, inference_count=500, error_count=500, confidence_histogram=())
    assert look(drift, failed) == drift
    one_a_day = [line.window(size=1, end_time=after_seconds(86400.0 * day)) for day in range(300)]
    assert look(drift, *one_a_day).state is DriftState.STEADY


def test_windows_that_come_late_change_nothing_but_the_order() -> None:
    line = Line()
    drift = learned(line)
    windows = line.windows(60)
    random.Random(1).shuffle(windows)
    late = look(drift, *windows)
    assert late.state is DriftState.STEADY
    assert late.inference_count == drift.inference_count + 3000
    assert late.place == max((window.batch, window.end_time) for window in windows)


def test_statistics_of_a_share_of_the_inputs_are_waited_for() -> None:
    """A fast line: of 200 inferences in a window the inputs of 20 are looked at."""
    line = Line()

    def window(draw: Draw) -> MetricWindow:
        looked = line.window(draw, size=20)
        return replace(
            looked,
            inference_count=200,
            confidence_histogram=tuple(count * 10 for count in looked.confidence_histogram),
            label_counts={label: count * 10 for label, count in looked.label_counts.items()},
        )

    drift = look(None, *[window(usual) for _ in range(24)])
    assert (drift.state, drift.reference_count) == (DriftState.LEARNING, 4800)
    while drift.state is DriftState.LEARNING:
        drift = look(drift, window(usual))
    assert drift.reference["sharpness"].total >= POLICY.reference_count
    drift = look(drift, *[window(usual) for _ in range(100)])
    assert drift.state is DriftState.STEADY
    drift = look(drift, *[window(shifted(0.2)) for _ in range(40)])
    assert drift.state is DriftState.DRIFTED
    assert drift.recently.counts["sharpness"].total >= POLICY.recent_count
    drift = look(drift, *[window(usual) for _ in range(30)])
    assert drift.state is DriftState.STEADY


def test_a_statistic_that_appears_later_waits_for_the_next_reference() -> None:
    line = Line()
    bare: dict[str, Any] = {"input_statistics": {}}
    drift = learned(line, usual)
    plain = look(None, *[line.window(**bare) for _ in range(11)])
    assert set(plain.tests) == {"labels", "confidence"}
    assert set(look(plain, *line.windows(10, shifted(0.3))).tests) == {"labels", "confidence"}
    other_bins: dict[str, Any] = {
        "input_statistics": {"sharpness": Histogram(low=-12.0, high=0.0, bin_counts=(50,) + (0,) * 31)}
    }
    assert look(drift, *[line.window(**other_bins) for _ in range(50)]).state is DriftState.STEADY


def test_learning_anew_takes_what_comes_next() -> None:
    line = Line()
    drift = learned(line)
    while drift.state is not DriftState.DRIFTED:
        drift = look(drift, line.window(shifted(0.2)))
    again = relearn(drift, "new lamp", now=NOW)
    assert (again.state, again.reference_count, again.episode_count) == (DriftState.LEARNING, 0, 0)
    again = look(again, *line.windows(100, shifted(0.2)))
    assert again.state is DriftState.STEADY
    assert images_until_flagged(again, line, usual, most=400) > 0


def test_the_stakes_of_all_blocks_add_up_to_no_more_than_one() -> None:
    staked = sum(exp(log_stake(block)) for block in range(1, 200_000))
    rest = 1 / (2.11 * log(200_000))
    assert 0.99 < staked + rest <= 1.0


def test_events_are_what_lies_below_each_edge_or_has_each_label() -> None:
    assert Counts(bins=(1, 2, 3)).events() == (1, 3)
    assert Counts(bins=(1, 2, 3), labels=("", "a", "b")).events() == (1, 2, 3)


class TestSlots:
    """Versions of one slot."""

    def test_a_new_version_has_a_reference_of_its_own(self) -> None:
        line = Line()
        known = self._follow([], line.windows(30))
        assert [(one.version, one.serving, one.state) for one in known] == [(1, True, DriftState.STEADY)]
        known = self._follow(known, line.windows(30, shifted(0.3), version=2))
        assert [(one.version, one.serving, one.state) for one in known] == [
            (1, False, DriftState.STEADY),
            (2, True, DriftState.STEADY),
        ]

    def test_a_drift_ends_when_its_version_is_replaced_and_begins_again_after_a_rollback(self) -> None:
        line = Line()
        known = self._follow([], [*line.windows(30), *line.windows(20, shifted(0.3))])
        assert known[0].state is DriftState.DRIFTED
        followed = follow(
            known,
            line.windows(1, shifted(0.3), version=2),
            POLICY,
            versions_max=VERSIONS_MAX,
            stretches_max=STRETCHES_MAX,
            now=NOW,
        )
        assert [(one.action, one.reason) for one in followed.happenings] == [("drift.end", "VERSION_REPLACED")]
        known = self._merge(known, followed.changed)
        assert [(one.serving, one.state) for one in known] == [(False, DriftState.STEADY), (True, DriftState.LEARNING)]
        followed = follow(
            known,
            line.windows(20, shifted(0.3)),
            POLICY,
            versions_max=VERSIONS_MAX,
            stretches_max=STRETCHES_MAX,
            now=NOW,
        )
        assert [(one.action, one.resource) for one in followed.happenings] == [
            ("drift.begin", "agents/st-1/drifts/solar@1")
        ]

    def test_late_windows_of_the_version_before_move_nothing(self) -> None:
        line = Line()
        late = line.windows(3)
        known = self._follow([], [*line.windows(30), *line.windows(30, version=2)])
        before = {one.version: one.serving for one in known}
        known = self._follow(known, late)
        assert {one.version: one.serving for one in known} == before == {1: False, 2: True}

    def test_a_clock_that_is_set_back_moves_nothing(self) -> None:
        line = Line()
        past: dict[str, Any] = {"start_time": after_seconds(-3600), "end_time": after_seconds(-3500)}
        known = self._follow([], [*line.windows(12), line.window(version=2, **past)])
        assert {one.version: one.serving for one in known} == {1: False, 2: True}

    def test_only_the_last_versions_are_kept(self) -> None:
        line = Line()
        known = self._follow([], [line.window(version=version) for version in range(1, 5)])
        followed = follow(
            known, [line.window(version=5)], POLICY, versions_max=VERSIONS_MAX, stretches_max=STRETCHES_MAX, now=NOW
        )
        assert [one.version for one in followed.removed] == [1]
        assert {one.version for one in followed.changed} == {4, 5}

    def test_what_waited_together_is_looked_at_in_a_few_stretches(self) -> None:
        line = Line()
        windows = line.windows(90)
        drift = follow([], windows, POLICY, versions_max=VERSIONS_MAX, stretches_max=4, now=NOW).changed[0]
        assert (drift.inference_count, drift.reference_count) == (4500, 500), "a reference keeps its blocks apart"
        assert drift.block_number == 4
        late = line.windows(90, shifted(0.3))
        drift = follow([drift], late, POLICY, versions_max=VERSIONS_MAX, stretches_max=4, now=NOW).changed[0]
        assert (drift.state, drift.inference_count) == (DriftState.DRIFTED, 9000)

    def test_what_begins_and_ends_is_told_once(self) -> None:
        line = Line()
        known, told = list[Drift](), list[Happening]()
        for draw, count in ((usual, 30), (shifted(0.3), 30), (usual, 30)):
            for window in line.windows(count, draw):
                followed = follow(
                    known, [window], POLICY, versions_max=VERSIONS_MAX, stretches_max=STRETCHES_MAX, now=NOW
                )
                known = self._merge(known, followed.changed)
                told += followed.happenings
        assert [(one.action, one.reason) for one in told] == [
            ("drift.begin", "INPUTS_DRIFTED"),
            ("drift.end", "WITHIN_BAND"),
        ]
        assert told[0].related == ("agents/st-1", "models/solar", "models/solar/versions/1")
        assert "sharpness" in str(told[0].evidence["statistics"])

    @staticmethod
    def _merge(known: Sequence[Drift], changed: Sequence[Drift]) -> list[Drift]:
        merged = {one.version: one for one in known} | {one.version: one for one in changed}
        return [merged[version] for version in sorted(merged)]

    def _follow(self, known: Sequence[Drift], windows: Sequence[MetricWindow]) -> list[Drift]:
        followed = follow(known, windows, POLICY, versions_max=VERSIONS_MAX, stretches_max=STRETCHES_MAX, now=NOW)
        return self._merge(known, followed.changed)


def test_a_restart_changes_nothing() -> None:
    """Looked at one by one or together, with any pauses in between, the same windows give the same drift."""
    line = Line()
    windows = [*line.windows(40), *line.windows(10, shifted(0.1))]
    together = follow([], windows, POLICY, versions_max=VERSIONS_MAX, stretches_max=STRETCHES_MAX, now=NOW).changed[0]
    one_by_one: Sequence[Drift] = ()
    for window in windows:
        one_by_one = follow(
            one_by_one, [window], POLICY, versions_max=VERSIONS_MAX, stretches_max=STRETCHES_MAX, now=NOW
        ).changed
    assert one_by_one[0] == replace(together, revision=0)
