"""Messages as JSON, in the shape on which scripts rely.

Keys are the proto's field names; every field is there, unset messages and optionals as null; int64 are numbers; enums
lose their prefix ("RUNNING"); timestamps are RFC 3339 in UTC, durations "10s"; bytes are base64; not-a-number is null.
"""

import base64
import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

Descriptor: TypeAlias = Any
"""A field's or an enum's descriptor: protobuf has two classes for each, by implementation."""
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def document_of(message: Message) -> dict[str, Any]:
    """Return `message` in the shape above, ready for `json.dumps`."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def enum_word(descriptor: Descriptor, number: int) -> str:
    """Return the word of a value without its prefix; a value newer than this program reads as UNSPECIFIED."""
    value = descriptor.values_by_number.get(number) or descriptor.values_by_number[0]
    prefix = _WORD_START.sub("_", descriptor.name).upper() + "_"
    return str(value.name).removeprefix(prefix)


def word(message: Message, field: str) -> str:
    """Return the word of the enum field `field` of `message`."""
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert descriptor is not None, f"{field} is no enum"
    return enum_word(descriptor, getattr(message, field))


def _field(message: Message, field: Descriptor) -> Any:
    value = getattr(message, field.name)
    if isinstance(value, Struct):
        return MessageToDict(value) if message.HasField(field.name) else None
    if isinstance(value, Mapping):
        assert field.message_type is not None, "a map is a repeated message"
        entry = field.message_type.fields_by_name["value"]
        return {str(key): _value(entry, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_value(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Descriptor, value: Any) -> Any:
    match value:
        case Timestamp() | Duration():
            return value.ToJsonString()
        case Message():
            return document_of(value)
        case bytes():
            return base64.b64encode(value).decode()
        case float():
            return value if math.isfinite(value) else None
        case int() if field.enum_type is not None:
            return enum_word(field.enum_type, value)
        case _:
            return value
