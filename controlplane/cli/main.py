"""The console script `lineside`."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise

from cyclopts import CycloptsError

from controlplane.cli import exits
from controlplane.cli.app import app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, as `controlplane.cli.exits` lists them."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = app.meta(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _misused(error, words)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` perhaps, has seen enough. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    return exits.OK if status is None else int(status)


def _misused(error: CycloptsError, words: Sequence[str]) -> int:
    text = " ".join(str(error).split()).rstrip(".")
    command = shlex.join(["lineside", *(error.command_chain or ()), "--help"])
    if _wants_json(words):
        facts = {"code": "", "reason": "USAGE", "field": "", "message": text, "remedy": f"see `{command}`"}
        print(json.dumps({"error": facts}), file=sys.stderr)
    else:
        print(f"error: {text}; see `{command}`", file=sys.stderr)
    return exits.USAGE


def _wants_json(words: Sequence[str]) -> bool:
    """Say whether JSON was asked for in words that could not be parsed."""
    return "--output=json" in words or ("--output", "json") in pairwise(words)


if __name__ == "__main__":
    sys.exit(main())
