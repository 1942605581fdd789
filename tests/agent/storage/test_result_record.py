"""A result comes back from its record as it went in, whatever texts an application sent."""

import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.app.evidence import result_message, result_of
from agent.domain.interpretation import LABELS_MAX
from agent.domain.result import LabelScore, Outcome, Result
from agent.storage import result_record, segment
from agent.storage.result_log import DiskResultLog
from tests.agent.storage.test_result_log import result
from tests.support.clock import LoopClock

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SCORES = st.floats(allow_nan=False)
RESULTS = st.builds(
    Result,
    slot=st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    version=st.integers(1, (1 << 63) - 1),
    device=TEXTS,
    infer_time=st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    part_id=TEXTS,
    request_id=TEXTS,
    outcome=st.sampled_from(Outcome),
    labels=st.lists(st.builds(LabelScore, label=TEXTS, score=SCORES), max_size=LABELS_MAX).map(tuple),
    latency_us=st.integers(0, (1 << 63) - 1),
    error=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    batch_index=st.integers(0, (1 << 31) - 1),
    lot=TEXTS,
    application=TEXTS,
)


@given(RESULTS)
def test_what_is_decoded_is_what_was_encoded(given_result: Result) -> None:
    assert result_record.decode(result_record.encode(given_result)) == given_result


@given(RESULTS)
def test_a_message_says_all_of_a_result(given_result: Result) -> None:
    assert result_of(result_message(given_result)) == given_result


def test_a_text_that_is_no_unicode_is_kept_as_far_as_it_is() -> None:
    assert result_record.decode(result_record.encode(result(error="half a pair: \ud800."))).error == "half a pair: ?."


def test_a_time_before_1970_is_a_time() -> None:
    """A box whose clock has not been set yet."""
    early = replace(result(), infer_time=datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC))
    assert result_record.decode(result_record.encode(early)) == early


def test_results_that_an_earlier_agent_left_are_reported(tmp_path: Path) -> None:
    payload = result_message(result("old")).SerializeToString()
    (tmp_path / f"{7:016d}.seg").write_bytes(segment.frame(segment.Kind.RESULT_MESSAGE, payload))
    log = DiskResultLog(tmp_path, clock=LoopClock())
    log.append([result("new")])
    log.seal(force=True)
    assert [one for number in log.pending() for one in log.read(number).results] == [result("old"), result("new")]


def test_the_numbers_of_a_record_take_as_many_bytes_as_the_format_says() -> None:
    content = result_record.encode(result("p", score=0.5))
    assert struct.unpack_from("<qqqIBBd", content)[1:] == (1, 1500, 0, 0, 1, 0.5)
    assert content[struct.calcsize("<qqqIBBd") :] == b"cells\0CPU\0p\0\0\0\0ok\0"
