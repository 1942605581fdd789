"""Which results a deployment keeps, as options of the command line."""

from dataclasses import dataclass

from cyclopts import Group, Parameter
from lineside.v1 import slot_pb2

from controlplane.client import InvalidInputError


@Parameter(name="*", group=Group("Results", sort_key=11))
@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions:
    """Which results are kept one by one; counts are of all results whatever is said here."""

    results_good: tuple[str, ...] = ()
    """Leave out results with this top label, if they are confident; may be repeated."""
    results_good_score: float | None = None
    """With --results-good: the score from which a good result is confident; else any score is."""
    results_one_in: int | None = None
    """Keep one result in so many, drawn evenly, and every failure."""


NO_RESULT_OPTIONS = ResultOptions()


def result_policy_of(options: ResultOptions) -> slot_pb2.ResultPolicy | None:
    """Return the policy, None where nothing is said. Raises InvalidInputError for options that exclude each other."""
    if options.results_one_in is not None:
        if options.results_good:
            raise InvalidInputError(
                "--results-good and --results-one-in exclude each other", field="results_one_in", remedy="leave one out"
            )
        return slot_pb2.ResultPolicy(keep=slot_pb2.ResultPolicy.KEEP_ONE_IN, one_in=options.results_one_in)
    if options.results_good:
        return slot_pb2.ResultPolicy(
            keep=slot_pb2.ResultPolicy.KEEP_DOUBTFUL,
            good_labels=options.results_good,
            good_score_min=options.results_good_score or 0.0,
        )
    if options.results_good_score is not None:
        raise InvalidInputError(
            "--results-good-score says nothing alone", field="results_good_score", remedy="add --results-good LABEL"
        )
    return None


def results_text(policy: slot_pb2.ResultPolicy) -> str:
    """Return the policy in words."""
    match policy.keep:
        case slot_pb2.ResultPolicy.KEEP_DOUBTFUL:
            return f"all but {', '.join(policy.good_labels)} from a score of {policy.good_score_min:g}"
        case slot_pb2.ResultPolicy.KEEP_ONE_IN:
            return f"one in {policy.one_in}, and every failure"
        case _:
            return "all"
