"""Which results of a batch are reported one by one, by the policies of their slots."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from lineside.v1 import evidence_pb2

from agent.app.evidence import WindowKey, key_of, key_of_result
from agent.app.ports import EvidenceBatch
from agent.domain.result import Outcome, Result
from agent.domain.result_policy import ResultKeep, ResultPolicy


def selected(batch: EvidenceBatch, policy_of: Callable[[str], ResultPolicy]) -> EvidenceBatch:
    """The batch without the results that their slots' policies leave out, which it counts. Its windows stay: they are
    of all results."""
    policies = {slot: policy_of(slot) for slot in {result.slot for result in batch.results}}
    if all(policy.keep is ResultKeep.ALL for policy in policies.values()):
        return batch
    kept: list[Result] = []
    omitted: Counter[WindowKey] = Counter()
    for index, result in enumerate(batch.results):
        if policies[result.slot].keeps(
            failed=result.outcome is Outcome.ERROR,
            label=result.labels[0].label if result.labels else "",
            score=result.labels[0].score if result.labels else 0.0,
            batch=batch.number,
            index=index,
        ):
            kept.append(result)
        else:
            omitted[key_of_result(result)] += 1
    return replace(
        batch,
        windows=tuple(_telling(window, omitted) for window in batch.windows),
        results=tuple(kept),
        omitted_results=omitted.total(),
    )


def _telling(content: bytes, omitted: Mapping[WindowKey, int]) -> bytes:
    """The window with how many of its results are left out. A batch has one window of a key."""
    window = evidence_pb2.MetricWindow.FromString(content)
    window.omitted_count = omitted.get(key_of(window), 0)
    return window.SerializeToString()
