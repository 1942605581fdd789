"""Which results of a batch are reported one by one, by the policies of their slots."""

from collections.abc import Callable
from dataclasses import replace

from lineside.v1 import evidence_pb2

from agent.app.ports import EvidenceBatch
from agent.domain.result_policy import ResultKeep, ResultPolicy


def selected(batch: EvidenceBatch, policy_of: Callable[[str], ResultPolicy]) -> EvidenceBatch:
    """The batch without the results that their slots' policies leave out, which it counts. Its windows stay: they are
    of all results."""
    results = [(content, evidence_pb2.Result.FromString(content)) for content in batch.results]
    policies = {slot: policy_of(slot) for slot in {message.slot for _, message in results}}
    if all(policy.keep is ResultKeep.ALL for policy in policies.values()):
        return batch
    kept = tuple(
        content
        for index, (content, message) in enumerate(results)
        if policies[message.slot].keeps(
            failed=message.outcome == evidence_pb2.Result.OUTCOME_ERROR,
            label=message.labels[0].label if message.labels else "",
            score=message.labels[0].score if message.labels else 0.0,
            batch=batch.number,
            index=index,
        )
    )
    return replace(batch, results=kept, omitted_results=len(results) - len(kept))
