"""The tree of commands and the options that all of them take, before or after the command's name.

Resources are named here and loaded when one of their commands is asked for, so that `--help` does not wait for gRPC.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from controlplane.cli.output_format import OutputFormat

_GLOBAL = Group("Global options", sort_key=100)

app = App(
    name="lineside",
    help="Operate a fleet: publish models, roll them out in gated waves, look at what comes back.",
    help_format="plaintext",
    help_epilogue="Example: lineside --config operator.toml agents list --output json",
    version=lambda: version("lineside"),
    default_parameter=Parameter(negative=()),
)

for _name, _help in {
    "models": "Publish models and look at their versions.",
    "agents": "Look at the fleet; explain, label, pin and revoke agents.",
    "tokens": "Join tokens, with which boxes become agents.",
    "deployments": "Standing intent: which model runs on which agents, and how.",
    "rollouts": "Move a deployment to another version in waves.",
    "samples": "Inputs that agents kept for training, and what people say of them.",
    "labels": "What people say of samples, and where they do not agree.",
    "datasets": "Labelled samples, frozen and split for training.",
    "results": "Every inference's outcome.",
    "training": "Train candidates from what came back.",
    "metrics": "Counts and latencies by version.",
    "drift": "Stations whose inputs or answers are no longer what they were.",
    "audit": "Who or which rule decided what, and on what evidence.",
    "operators": "Who may use this command line.",
}.items():
    app.command(f"controlplane.cli.{_name}:app", name=_name, help=_help)

app.meta.suppress_keyboard_interrupt = False
"""`main` turns Ctrl-C into its exit status."""


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(group=_GLOBAL)] = None,
    controller: Annotated[str | None, Parameter(group=_GLOBAL)] = None,
    output: Annotated[OutputFormat, Parameter(group=_GLOBAL)] = OutputFormat.TABLE,
) -> int:
    """Operate a fleet.

    Parameters
    ----------
    config
        operator.toml; else LINESIDE_CONFIG, else the one in your configuration folder.
    controller
        host:port of the controller, instead of the configuration's; also LINESIDE_CONTROLLER.
    output
        Tables for people, JSON for programs.
    """
    command, bound, handed = app.parse_args(tokens, exit_on_error=False, print_error=False)
    if "session" not in handed:
        command(*bound.args, **bound.kwargs)
        return 0
    from controlplane.cli.running import run

    return run(
        lambda session: command(*bound.args, **bound.kwargs, session=session),
        config=config,
        controller=controller,
        output=output,
    )
