"""Which results of a batch are reported one by one, by the policies of their slots."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from lineside.v1 import evidence_pb2

from agent.app.evidence import WindowKey, key_of
from agent.app.ports import EvidenceBatch
from agent.domain.result_policy import ResultKeep, ResultPolicy


def selected(batch: EvidenceBatch, policy_of: Callable[[str], ResultPolicy]) -> EvidenceBatch:
    """The batch without the results that their slots' policies leave out, which it counts. Its windows stay: they are
    of all results."""
    results = [(content, evidence_pb2.Result.FromString(content)) for content in batch.results]
    policies = {slot: policy_of(slot) for slot in {message.slot for _, message in results}}
    if all(policy.keep is ResultKeep.ALL for policy in policies.values()):
        return batch
    kept: list[bytes] = []
    omitted: Counter[WindowKey] = Counter()
    for index, (content, message) in enumerate(results):
        if policies[message.slot].keeps(
            failed=message.outcome == evidence_pb2.Result.OUTCOME_ERROR,
            label=message.labels[0].label if message.labels else "",
            score=message.labels[0].score if message.labels else 0.0,
            batch=batch.number,
            index=index,
        ):
            kept.append(content)
        else:
            omitted[key_of(message)] += 1
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
