"""Refusals on the wire."""

import pytest
from google.rpc import error_details_pb2

from controlplane.domain import errors as domain_errors
from controlplane.domain.errors import DomainError, FieldInvalidError, ForbiddenError, Reason
from controlplane.rpc import errors


def test_every_reason_has_a_code_and_every_code_a_reason() -> None:
    assert set(errors.CODES) == set(Reason)


def test_reasons_follow_aip_193() -> None:
    assert all(reason.isascii() and reason == reason.upper() and len(reason) <= 63 for reason in Reason)


@pytest.mark.parametrize("kind", DomainError.__subclasses__())
def test_every_kind_of_refusal_has_a_default_reason_that_is_mapped(kind: type[DomainError]) -> None:
    assert errors.code_of(kind("no").reason).value[0] > 0
    assert kind.__name__ in (domain_errors.__doc__ or "")


def test_a_refusal_carries_reason_field_and_remedy() -> None:
    status = errors.status_of(FieldInvalidError("it is negative", field="page_size", remedy="leave it 0"))
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad_request)
    assert status.message == "page_size: it is negative; leave it 0"
    assert (info.reason, info.domain) == ("FIELD_INVALID", "lineside")
    assert dict(info.metadata) == {"field": "page_size", "remedy": "leave it 0"}
    assert [violation.field for violation in bad_request.field_violations] == ["page_size"]


def test_a_refusal_without_a_field_names_none() -> None:
    status = errors.status_of(ForbiddenError("not yours"))
    assert len(status.details) == 1
