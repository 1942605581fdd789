"""Drift: what is asked for, what is shown and what is drawn."""

import json
import sys
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import audit_pb2, drift_pb2, drift_service_pb2

from tests.cli.conftest import Lineside
from tests.client.fake_controller import FakeController

NOON = Timestamp(seconds=1_800_000_000)


def add_drift(fake: FakeController, agent: str = "st-1", **fields: object) -> drift_pb2.Drift:
    sharpness = drift_pb2.DriftStatistic(
        name="sharpness",
        distance=0.43,
        tolerated=0.2,
        evidence_log10=12.5,
        evidence_needed_log10=3.6,
        drifted=True,
        reference_count=500,
        recent_count=250,
        range_low=-12,
        range_high=0,
        reference_bins=[0] * 20 + [100, 300, 100] + [0] * 9,
        recent_bins=[0] * 24 + [50, 150, 50] + [0] * 5,
    )
    labels = drift_pb2.DriftStatistic(
        name="labels",
        reference_count=500,
        labels=["", "bad", "good"],
        reference_bins=[0, 60, 440],
        evidence_needed_log10=3.6,
    )
    drift = drift_pb2.Drift(
        name=f"agents/{agent}/drifts/solar@2",
        agent=f"agents/{agent}",
        model_version="models/solar/versions/2",
        labels={"line": "3"},
        serving=True,
        state=drift_pb2.Drift.STATE_DRIFTED,
        transition_time=NOON,
        message="the last 250 inferences lie away from the reference: sharpness",
        reference_start_time=NOON,
        reference_count=500,
        reference_wanted=500,
        inference_count=4000,
        last_inference_time=NOON,
        statistics=[sharpness, labels],
    )
    for field, value in fields.items():
        setattr(drift, field, value)
    fake.drifts[drift.name] = drift
    fake.drifts[drift.name.partition("@")[0]] = drift
    return drift


def add_history(fake: FakeController) -> None:
    for place in range(5):
        fake.drift_history.points.add(
            model_version=f"models/solar/versions/{1 + place // 3}",
            start_time=Timestamp(seconds=NOON.seconds + 60 * place),
            end_time=Timestamp(seconds=NOON.seconds + 60 * place + 59),
            inference_count=100,
            distances={"sharpness": 0.1 * place} if place else {},
        )
    fake.drift_history.events.append(make_event())


def make_event() -> audit_pb2.AuditEvent:
    return audit_pb2.AuditEvent(
        name="auditEvents/1",
        create_time=NOON,
        actor="rules/drift",
        action="drift.begin",
        resource="agents/st-1/drifts/solar@2",
        message="sharpness",
    )


def test_list_shows_what_has_the_most_evidence(fake: FakeController, lineside: Lineside) -> None:
    add_drift(fake)
    shown = lineside("drift", "list", "--model", "solar", "--state", "drifted", "--all-versions")
    assert shown.status == 0
    assert "sharpness 0.43 of 0.20" in shown.out
    assert "DRIFTED" in shown.out
    (request, *_) = fake.requests("ListDrifts")
    assert (request.model, request.state, request.all_versions) == ("models/solar", drift_pb2.Drift.STATE_DRIFTED, True)
    listed = json.loads(lineside("drift", "list", "--output", "json").out)
    assert [drift["state"] for drift in listed] == ["DRIFTED"] * 2
    fake.drifts.clear()
    assert "no slot" in lineside("drift", "list", "--agent", "st-1").err


def test_show_puts_recent_beside_reference(fake: FakeController, lineside: Lineside) -> None:
    add_drift(fake)
    shown = lineside("drift", "show", "st-1", "solar")
    assert shown.status == 0
    assert [request.name for request in fake.requests("GetDrift")] == ["agents/st-1/drifts/solar"]
    for expected in ("line=3", "500 of 500 inferences", "sharpness", "1e+12.5", "1e+3.6"):
        assert expected in shown.out
    lineside("drift", "show", "st-1", "solar:2")
    assert fake.requests("GetDrift")[-1].name == "agents/st-1/drifts/solar@2"
    missing = lineside("drift", "show", "st-9", "solar")
    assert (missing.status, "agents/st-9/drifts/solar" in missing.err) == (1, True)


@pytest.mark.parametrize(("name", "magic"), [("drift.png", b"\x89PNG"), ("drift.svg", b"<?xml")])
def test_plot_draws_a_picture(
    fake: FakeController, lineside: Lineside, tmp_path: Path, name: str, magic: bytes
) -> None:
    add_drift(fake)
    add_history(fake)
    target = tmp_path / name
    drawn = lineside("drift", "plot", "st-1", "solar", "--since", "4h", "--out", str(target))
    assert (drawn.status, drawn.out) == (0, f"{target}\n"), drawn.err
    assert target.read_bytes().startswith(magic)
    (request,) = fake.requests("QueryDriftHistory")
    assert (request.name, request.HasField("start_time")) == ("agents/st-1/drifts/solar", True)


def test_plot_of_a_slot_that_still_learns_draws_what_there_is(
    fake: FakeController, lineside: Lineside, tmp_path: Path
) -> None:
    add_drift(fake).ClearField("statistics")
    drawn = lineside("drift", "plot", "st-1", "solar", "--out", str(tmp_path / "a.png"), "--output", "json")
    assert (drawn.status, json.loads(drawn.out)["file"]) == (0, str(tmp_path / "a.png"))


def test_plot_refuses_what_it_cannot_write(fake: FakeController, lineside: Lineside, tmp_path: Path) -> None:
    add_drift(fake)
    refused = lineside("drift", "plot", "st-1", "solar", "--out", "drift.gif")
    assert (refused.status, "drift.png" in refused.err) == (2, True)
    refused = lineside("drift", "plot", "st-1", "solar", "--out", str(tmp_path / "none" / "a.png"))
    assert (refused.status, "cannot write" in refused.err) == (2, True)


def test_plot_without_matplotlib_says_how_to_get_it(
    fake: FakeController, lineside: Lineside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_drift(fake)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refused = lineside("drift", "plot", "st-1", "solar", "--out", str(tmp_path / "a.png"))
    assert refused.status == 2
    assert "pip install 'lineside[plots]'" in refused.err


def test_watch_tells_what_has_drifted_and_what_changes(fake: FakeController, lineside: Lineside) -> None:
    drift = add_drift(fake)
    fake.drift_news = [
        drift_service_pb2.WatchDriftsResponse(drifts=[drift]),
        drift_service_pb2.WatchDriftsResponse(drifts=[drift], events=[make_event()]),
    ]
    shown = lineside("drift", "watch", "--model", "solar", "--timeout", "1s")
    assert shown.status == 0
    first, second, *_ = shown.out.splitlines()
    assert "st-1 solar:2 has drifted" in first
    assert "drift.begin agents/st-1/drifts/solar@2 by rules/drift" in second
    told = lineside("drift", "watch", "--timeout", "1s", "--output", "json").out.splitlines()
    assert [event["action"] for event in json.loads(told[1])["events"]] == ["drift.begin"]


def test_relearn_asks_for_a_reason(fake: FakeController, lineside: Lineside) -> None:
    add_drift(fake)
    shown = lineside("drift", "relearn", "st-1", "solar:2", "--reason", "a new lamp")
    assert (shown.status, "LEARNING" in shown.out, "a new lamp" in shown.out) == (0, True, True)
    assert lineside("drift", "relearn", "st-1", "solar").status == 2
