"""The machine's identities."""

import uuid

from controlplane.system import SystemIds


def test_ids_of_one_source_sort_in_the_order_in_which_they_were_given() -> None:
    ids = SystemIds()
    given = [ids.uid() for _ in range(5000)]
    assert given == sorted(given)
    assert len(set(given)) == len(given)
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in given} == {(7, uuid.RFC_4122)}
