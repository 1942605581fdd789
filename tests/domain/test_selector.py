"""Selectors read what Kubernetes reads, and refuse the rest saying where."""

import pytest
from hypothesis import given

from controlplane.domain.errors import FieldInvalidError, Reason
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.selector import Operator, Selector, facts, is_reserved_key, parse_selector
from tests.domain import strategies
from tests.support.factories import make_agent, make_device, make_host, make_observation

LABELS = {"site": "suzhou", "line": "3", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("line=3", True),
        ("line==3", True),
        ("line = 4", False),
        ("line!=4", True),
        ("line!=3", False),
        ("station!=1", True),
        ("line in (3,4)", True),
        ("line in(1, 2)", False),
        ("station in (1)", False),
        ("line notin (3)", False),
        ("station notin (1)", True),
        ("line", True),
        ("station", False),
        ("!line", False),
        ("! station", True),
        ("empty=", True),
        ("empty in (,x)", True),
        ("site=suzhou,line in (3,4),!station", True),
        ("site=suzhou, line=4", False),
        ("in=3", False),
        ("  line=3  ", True),
    ],
)
def test_a_selector_matches_as_in_kubernetes(text: str, matches: bool) -> None:
    assert parse_selector(text, field="selector").matches(LABELS) is matches


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be empty"),
        ("  ", "cannot be empty"),
        (",", "found ',' at position 1"),
        ("line=3,", "found the end at position 8"),
        ("line=3 site=x", "found 'site' at position 8"),
        ("line in 3", "found '3' at position 9"),
        ("line in (3", "found the end at position 11"),
        ("line > 3", "'>' at position 6"),
        ("line=3;drop", "';' at position 7"),
        ("-line=3", "'-line' at position 1 is not a label key"),
        ("line=-3", "'-3' at position 6 is not a label value"),
        ("a/b/c=3", "'a/b/c' at position 1 is not a label key"),
        ("x" * 64, "is not a label key"),
        ("line=" + "x" * 64, "is not a label value"),
        ("line=(3)", "found '(' at position 6"),
        ("!", "found the end at position 2"),
        ("line=π", "'π' at position 6"),
    ],
)
def test_a_bad_selector_is_refused_with_position_and_remedy(text: str, says: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        parse_selector(text, field="deployment.selector")
    assert says in refusal.value.message
    assert refusal.value.reason is Reason.SELECTOR_INVALID
    assert refusal.value.field == "deployment.selector"
    assert refusal.value.remedy


@given(strategies.selectors)
def test_a_selector_reads_back_from_its_text(selector: Selector) -> None:
    assert parse_selector(str(selector), field="selector") == selector


@given(strategies.selectors, strategies.labels)
def test_requirements_hold_together_and_negations_are_opposites(selector: Selector, labels: dict[str, str]) -> None:
    opposites = {
        Operator.IN: Operator.NOT_IN,
        Operator.NOT_IN: Operator.IN,
        Operator.EXISTS: Operator.NOT_EXISTS,
        Operator.NOT_EXISTS: Operator.EXISTS,
    }
    assert selector.matches(labels) is all(one.matches(labels) for one in selector.requirements)
    for one in selector.requirements:
        opposite = type(one)(key=one.key, operator=opposites[one.operator], values=one.values)
        assert opposite.matches(labels) is not one.matches(labels)


def test_facts_stand_beside_the_labels_and_reserved_labels_count_for_nothing() -> None:
    record = AgentRecord(
        agent=make_agent(labels={"line": "3", "agent": "liar", "os": "liar", "device.npu": "true"}),
        observation=make_observation(
            host=make_host(os="Linux"),
            devices=(make_device(), make_device(device="GPU.0"), make_device(device="GPU.1")),
        ),
    )
    assert facts(record) == {
        "line": "3",
        "agent": "st-1",
        "os": "linux",
        "device.cpu": "true",
        "device.gpu": "true",
    }


def test_an_agent_that_never_synced_has_its_labels_and_its_id() -> None:
    assert facts(AgentRecord(agent=make_agent(labels={"line": "3"}))) == {"line": "3", "agent": "st-1"}


@pytest.mark.parametrize(("key", "reserved"), [("agent", True), ("os", True), ("device.npu", True), ("line", False)])
def test_fact_keys_are_reserved(key: str, reserved: bool) -> None:
    assert is_reserved_key(key) is reserved
