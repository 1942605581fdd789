"""A bench whose baseline is not on this machine."""


class MissingToolError(Exception):
    """The message names the tool and how to get it."""
