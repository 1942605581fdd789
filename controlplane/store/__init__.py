"""The controller's database: SQLAlchemy lives here and nowhere else.

`migrate(database_url)` brings a database to the newest schema; `open_store(database_url)` opens it.
"""

from controlplane.store.migration import migrate
from controlplane.store.unit_of_work import SqlStore, open_store

__all__ = ["SqlStore", "migrate", "open_store"]
