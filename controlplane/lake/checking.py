"""What a file of results that an agent sent is held to before it is stored.

A file is taken whole or not at all. What only the agent makes is checked and refused; what an application or a model
can make odd (long texts, NUL, scores that are no numbers) is brought within bounds, as it is for results in rows.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError, ForbiddenError, Reason
from controlplane.domain.evidence import ResultOutcome
from controlplane.domain.ids import AgentId, check_resource_id
from controlplane.lake.schema import COLUMNS

_FIELD = "result_files.content"


def checked(content: bytes, *, agent_id: AgentId, batch: int) -> tuple[pa.Table, bool]:
    """Return the rows in our columns, and whether the content is exactly those. Raises FieldInvalidError (field
    "result_files.content") for anything that is not results of one day of this batch, ForbiddenError (NOT_YOURS) for
    rows of another agent."""
    table, as_it_was = _parsed(content)
    _check_own(table, agent_id=agent_id, batch=batch)
    _check_values(table)
    return table, as_it_was and not is_odd(table)


def _parsed(content: bytes) -> tuple[pa.Table, bool]:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        rows = file.metadata.num_rows
        unpacked = sum(file.metadata.row_group(each).total_byte_size for each in range(file.metadata.num_row_groups))
        if not 0 < rows <= limits.EVIDENCE_RESULTS_MAX or unpacked > limits.LAKE_UNPACKED_BYTES_MAX:
            raise _refused(
                f"{rows} rows of {unpacked} bytes",
                remedy=f"send 1 to {limits.EVIDENCE_RESULTS_MAX} rows, and smaller batches",
            )
        missing = sorted(set(COLUMNS.names) - set(file.schema_arrow.names))
        if missing:
            raise _refused(f"the columns {', '.join(missing)} are missing", remedy="send every column of a result")
        table = file.read(columns=COLUMNS.names)
        table.validate(full=True)  # texts are UTF-8, lists lie within their values
        # Refuses nulls where there may be none, and numbers that another type would cut.
        ours = table.select(COLUMNS.names).cast(COLUMNS)
        if any(ours[name].combine_chunks().values.null_count for name in ("labels", "scores")):
            raise _refused("a label or a score is null", remedy="leave it out")
    except (pa.ArrowException, ValueError, OSError) as error:
        raise _refused(
            f"it is no readable file of results ({str(error).splitlines()[0][:200]})", remedy="send Parquet"
        ) from error
    return ours, file.schema_arrow.names == COLUMNS.names


def _check_own(table: pa.Table, *, agent_id: AgentId, batch: int) -> None:
    if pc.any(pc.not_equal(table["agent"], agent_id)).as_py():
        raise ForbiddenError(
            "a result names another agent",
            field="result_files.content",
            remedy=f"report results of {agent_id} alone",
            reason=Reason.NOT_YOURS,
        )
    if pc.any(pc.not_equal(table["batch"], batch)).as_py():
        raise _refused("a result names another batch", remedy=f"send results of batch {batch} alone")


def _check_values(table: pa.Table) -> None:
    index = table["index"].combine_chunks()
    if pc.min(index).as_py() < 0 or pc.any(pc.less_equal(index[1:], index[:-1])).as_py():
        raise _refused("index does not rise from row to row", remedy="number the results of a batch from 0")
    if pc.min(table["version"]).as_py() < 1:
        raise _refused("a version is below 1", remedy="send the version that answered")
    for model in pc.unique(table["model"]).to_pylist():
        check_resource_id(model, field=f"{_FIELD}.model")
    if set(pc.unique(table["outcome"]).to_pylist()) - set(ResultOutcome):
        raise _refused("an outcome is neither OK nor ERROR", remedy="say how each inference ended")
    days = pc.unique(pc.floor_temporal(table["infer_time"], unit="day"))
    if len(days) > 1:
        raise _refused(f"results of {len(days)} days", remedy="send a file for each UTC day")
    if not pc.all(pc.equal(pc.list_value_length(table["labels"]), pc.list_value_length(table["scores"]))).as_py():
        raise _refused("labels and scores differ in number", remedy="send a score for each label")
    try:
        days.to_pylist()
    except (ValueError, OverflowError) as error:
        raise _refused("a time is beyond any calendar", remedy="look after the agent's clock") from error


def is_odd(table: pa.Table) -> bool:
    """Whether something in it is beyond bounds, or `label` and `score` are not the first of their lists."""
    labels, scores = (table[name].combine_chunks() for name in ("labels", "scores"))
    texts = [table[name] for name in ("device", "part_id", "lot", "application", "request_id", "error")]
    lengths = pc.list_value_length(labels)
    first = pc.if_else(pc.greater(lengths, 0), labels.offsets[:-1], None)
    same: list[Any] = [
        pc.equal(pc.fill_null(table["label"], "\0"), pc.fill_null(labels.values.take(first), "\0")),
        pc.equal(pc.fill_null(table["score"], -1.0), pc.fill_null(scores.values.take(first), -1.0)),
    ]
    return (
        any(_is_odd_text(text) for text in (*texts, labels.flatten()))
        or pc.max(lengths).as_py() > limits.RESULT_LABELS_MAX
        or not all(pc.all(each).as_py() for each in same)
        or pc.all(pc.is_finite(scores.flatten())).as_py() is False
    )


def _is_odd_text(text: Any) -> bool:
    if len(text) == 0:
        return False
    longest = pc.max(pc.utf8_length(text)).as_py()
    return bool(longest > limits.RESULT_TEXT_CHARS_MAX or pc.any(pc.match_substring(text, "\0")).as_py())


def _refused(what: str, *, remedy: str) -> FieldInvalidError:
    return FieldInvalidError(what, field=_FIELD, remedy=remedy)
