"""Tables of the results lake: which objects hold results, and which objects nobody names any more.

The rules of `tables.py` hold here too.
"""

from sqlalchemy import Column, ForeignKeyConstraint, Index, Table

from controlplane.store.tables import _SERIAL, _id, _integer, _text, _time, metadata

result_object = Table(
    "result_object",
    metadata,
    _id("key", primary_key=True),
    _id("folder"),
    _integer("level"),
    _integer("rows"),
    _integer("size_bytes"),
    _text("digest"),
    _time("start_time"),
    _time("end_time"),
    _time("create_time"),
    _id("first_part"),
    _id("last_part"),
    _integer("first_arrival"),
    _integer("last_arrival"),
    Index(None, "first_arrival"),
    Index(None, "last_arrival"),
    Index(None, "level", "folder", "create_time"),
    Index(None, "end_time"),
    Index(None, "create_time"),
)

result_scope = Table(
    "result_scope",
    metadata,
    _id("object_key", primary_key=True),
    _id("agent_id", primary_key=True),
    _id("model_id", primary_key=True),
    _integer("version", primary_key=True),
    _integer("first_arrival"),
    _integer("last_arrival"),
    ForeignKeyConstraint(["object_key"], ["result_object.key"]),
    Index(None, "model_id", "first_arrival"),
    Index(None, "model_id", "last_arrival"),
    Index(None, "agent_id", "first_arrival"),
    Index(None, "agent_id", "last_arrival"),
)
"""Of whom an object holds results. Arrivals are the object's, copied so that a list can seek by them."""

result_arrival = Table(
    "result_arrival",
    metadata,
    Column("number", _SERIAL, primary_key=True, autoincrement=True),
    sqlite_autoincrement=True,
)
"""Where arrivals are drawn: a row is added for its number and removed again. A number is never used twice, and drawing
one conflicts with nobody, which a row that counts would."""

result_waste = Table(
    "result_waste",
    metadata,
    _id("key", primary_key=True),
    _time("create_time"),
    Index(None, "create_time"),
)
"""Objects that the index named once, to be removed when no reader can still be at them."""
