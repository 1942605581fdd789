import pytest

from controlplane.client import InvalidInputError
from controlplane.client.names import model_name, parse_reference, short, version_name


def test_ids_and_names_are_both_taken() -> None:
    assert model_name("solar") == model_name("models/solar") == "models/solar"
    assert version_name("solar", 7) == "models/solar/versions/7"


def test_short_names_are_what_people_write() -> None:
    assert [short(name) for name in ("agents/st-1", "models/m/versions/7", "", "a/b/c")] == ["st-1", "m:7", "", "a/b/c"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [("solar", ("solar", None)), ("solar:7", ("solar", 7)), ("models/solar/versions/7", ("solar", 7))],
)
def test_references_are_parsed(written: str, expected: tuple[str, int | None]) -> None:
    assert parse_reference(written, field="model") == expected


@pytest.mark.parametrize("written", ["solar:", "solar:0", "solar:x", "solar:-1", "solar:7:8", "solar:٣"])
def test_what_is_no_number_is_refused(written: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_reference(written, field="model")
    assert caught.value.field == "model"
    assert caught.value.remedy
