"""Exit statuses of `lineside`, on which scripts rely."""

OK = 0
REFUSED = 1
"""The controller refused."""
USAGE = 2
"""It cannot be right: options, paths, configuration. Nothing was sent."""
UNFINISHED = 3
"""A rollout did not succeed, or waiting for it ended before it did."""
UNREACHABLE = 4
"""The controller did not answer."""
INTERRUPTED = 130
"""Ctrl-C, as shells have it."""
