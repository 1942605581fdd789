"""How a failure is told: one line for people, one JSON object for programs, both on stderr."""

import json
import sys

from controlplane.cli import exits
from controlplane.cli.output import plain
from controlplane.client import ClientError, InvalidInputError, UnreachableError, WaitTimeoutError


def tell(error: ClientError, *, as_json: bool) -> int:
    """Write the failure to stderr and return the exit status that it means."""
    if as_json:
        facts = {"code": error.code, "reason": error.reason, "field": error.field}
        facts |= {"message": error.message, "remedy": error.remedy}
        print(json.dumps({"error": facts}), file=sys.stderr)
    else:
        print(plain(f"error: {error}").plain, file=sys.stderr)
    match error:
        case InvalidInputError():
            return exits.USAGE
        case WaitTimeoutError():
            return exits.UNFINISHED
        case UnreachableError():
            return exits.UNREACHABLE
        case _:
            return exits.REFUSED
