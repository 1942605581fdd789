"""Every command explains itself, with an example that its own parser takes, and the manual knows it."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from controlplane.cli.app import app
from controlplane.cli.main import main

MANUAL = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(parent: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Yield every command that does something, with its words."""
    for name in parent:
        if name.startswith("-"):
            continue
        child = parent[name]
        if child.default_command is None:
            yield from commands(child, (*path, name))
        else:
            yield (*path, name), child


COMMANDS = dict(commands(app))


def example_of(text: str) -> list[str]:
    """Return the words of the example, without those of the shell around it."""
    return shlex.split(text.removeprefix("Example: "))[1:]


def test_the_tree_is_the_one_that_scripts_rely_on() -> None:
    assert {" ".join(path) for path in COMMANDS} == {
        "models publish", "models list", "models show", "models yank", "models unyank",
        "models lineage",
        "agents list", "agents show", "agents explain", "agents label", "agents pin", "agents unpin", "agents revoke",
        "tokens create", "tokens list", "tokens revoke",
        "deployments create", "deployments list", "deployments show", "deployments delete",
        "rollouts plan", "rollouts rehearse", "rollouts start", "rollouts approve",
        "rollouts list", "rollouts show", "rollouts watch", "rollouts pause", "rollouts resume",
        "rollouts abort", "rollouts rollback", "rollouts retry",
        "samples list", "samples get", "samples add", "samples label", "samples import", "samples export",
        "labels list", "labels conflicts",
        "datasets freeze", "datasets list", "datasets show", "datasets export", "datasets sheet",
        "results list", "results query", "results trace", "results rejudge",
        "training start", "training list", "training show", "training log", "training cancel", "training retry",
        "training trainers", "training approve", "training reject", "training judgement", "training judgements",
        "training policy set", "training policy show", "training policy list",
        "metrics show",
        "drift list", "drift show", "drift plot", "drift watch", "drift relearn",
        "audit list",
        "operators create", "operators list", "operators revoke", "operators whoami",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_every_option_and_an_example(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: lineside {' '.join(path)}" in shown
    for option in ("--config", "--controller", "--output"):
        assert option in shown
    for argument in COMMANDS[path].assemble_argument_collection(parse_docstring=True):
        # Options that several commands share have a place of their own, which is none on the command line.
        if argument.parse and argument.name != "*":
            assert argument.parameter.help, f"{argument.name} is not explained"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_example_is_understood(path: tuple[str, ...]) -> None:
    epilogue = COMMANDS[path].help_epilogue
    assert isinstance(epilogue, str)
    words = example_of(epilogue)
    if "--output" in words:
        place = words.index("--output")
        del words[place : place + 2]
    command, _, ignored = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command is COMMANDS[path].default_command
    assert "session" in ignored


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_manual_has_an_example_of_the_command(path: tuple[str, ...]) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", MANUAL.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert any(line.startswith(f"lineside {' '.join(path)}") for line in lines), f"docs/cli.md lacks {' '.join(path)}"


def section_of(title: str) -> str:
    return MANUAL.read_text().partition(f"### {title}\n")[2].partition("\n##")[0]


def test_the_manual_names_every_option() -> None:
    for path, command in COMMANDS.items():
        title = f"lineside {' '.join(path)}"
        section = section_of(title)
        assert section, f"docs/cli.md has no section on {title}"
        if "(#strategy)" in section:
            section += section_of("Strategy")
        for argument in command.assemble_argument_collection():
            if argument.parse and argument.name.startswith("--"):
                assert f"`{argument.name}" in section, f"the section on {title} lacks {argument.name}"


def test_help_waits_for_no_transport() -> None:
    code = (
        "import sys\n"
        "from controlplane.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "print(sorted({'grpc', 'lineside', 'google.protobuf'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


def test_the_base_dependencies_are_enough() -> None:
    allowed = {
        "lineside", "controlplane", "grpc", "grpc_status", "google", "cyclopts", "rich", "rich_rst", "platformdirs",
        "structlog", "attr", "attrs", "docstring_parser", "docutils", "pygments", "markdown_it", "mdurl",
        "typing_extensions",
    }  # fmt: skip
    code = (
        "import sys\n"
        f"allowed = {sorted(allowed)} + [*sys.stdlib_module_names]\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] not in allowed:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Bare())\n"
        "import controlplane.cli.running\n"
        "from controlplane.cli.main import main\n"
        "from controlplane.cli.app import app\n"
        "assert all(main([name, '--help']) == 0 for name in app if name[0] != '-')\n"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)  # noqa: PLW1510
    assert ran.returncode == 0, ran.stderr
