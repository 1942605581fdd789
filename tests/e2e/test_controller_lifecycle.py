"""The controller's processes: made, served, killed, restarted, stopped."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.controller import ControllerProcess, run_command
from tests.support.wire import Box

pytestmark = pytest.mark.e2e


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[ControllerProcess]:
    controller = ControllerProcess(folder=tmp_path / "controller")
    assert controller.init().returncode == 0
    yield controller
    controller.kill()


def digest_of(folder: Path) -> dict[str, bytes]:
    """Contents of every file but the database, whose bytes move when it is only opened."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("lineside.db"))
    return {str(path): path.read_bytes() for path in files}


def wait_until(condition: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        os.sched_yield()


def bytes_process_ids(controller: ControllerProcess) -> list[int]:
    assert controller.process is not None
    children = Path(f"/proc/{controller.process.pid}/task/{controller.process.pid}/children")
    return [int(text) for text in children.read_text().split()]


def test_a_second_init_changes_nothing_and_says_so(controller: ControllerProcess) -> None:
    before = digest_of(controller.folder)
    again = controller.init()
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert digest_of(controller.folder) == before


def test_secrets_are_for_the_owner_alone(controller: ControllerProcess) -> None:
    secrets = ("operator.toml", "pki/ca.key", "pki/server.key", "lineside.db")
    assert {(controller.folder / name).stat().st_mode & 0o777 for name in secrets} == {0o600}


@pytest.mark.parametrize("missing", ["pki/server.pem", "pki/server.key", "operator.toml"])
def test_an_interrupted_init_is_repeated(controller: ControllerProcess, missing: str) -> None:
    ca = controller.ca_certificate
    (controller.folder / missing).unlink()
    assert controller.init().returncode == 0
    assert (controller.folder / missing).exists()
    assert controller.ca_certificate == ca
    controller.start()
    assert controller.create_join_token().startswith("lsj1.")


def test_a_lost_ca_key_is_never_replaced_silently(controller: ControllerProcess) -> None:
    (controller.folder / "pki" / "ca.key").unlink()
    again = controller.init()
    assert again.returncode == 1
    assert "backup" in again.stderr


def test_init_where_nothing_can_be_written_fails_clearly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_command("init", "--dir", str(tmp_path / "file" / "controller"))
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr


def test_serving_a_folder_that_init_has_not_made_is_refused(tmp_path: Path) -> None:
    done = run_command("serve", "--dir", str(tmp_path), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "init" in done.stderr


@pytest.mark.parametrize(
    "option",
    [
        ("--listen", "nowhere"),
        ("--sync-interval", "soon"),
        ("--sync-interval", "0s"),
        ("--agent-certificate-ttl", "9999d"),
        ("--log-level", "LOUD"),
        ("--database-url", "mysql://x/y"),
        ("--artifact-url", "nonsense"),
    ],
)
def test_bad_options_are_refused_by_name(controller: ControllerProcess, option: tuple[str, str]) -> None:
    done = run_command("serve", "--dir", str(controller.folder), *option)
    assert done.returncode == 1
    assert option[0].removeprefix("--").replace("-", "_") in done.stderr
    assert "Traceback" not in done.stderr


def test_one_process_serves_a_folder_at_a_time(controller: ControllerProcess) -> None:
    controller.start()
    done = run_command("serve", "--dir", str(controller.folder), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "another process" in done.stderr


def test_a_taken_port_is_named(controller: ControllerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_command("serve", "--dir", str(controller.folder), "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert str(port) in done.stderr


def test_operator_toml_follows_the_port(controller: ControllerProcess) -> None:
    controller.start()
    assert f'controller = "{controller.api}"' in controller.operator_file.read_text()


def test_a_stop_is_quick_and_leaves_no_process(controller: ControllerProcess) -> None:
    controller.start()
    (child,) = bytes_process_ids(controller)
    started = time.monotonic()
    assert controller.stop() == 0
    assert time.monotonic() - started < 5
    assert not Path(f"/proc/{child}").exists()


def test_a_killed_controller_is_back_on_the_same_ports(controller: ControllerProcess) -> None:
    controller.start()
    addresses = dict(controller.addresses)
    token = controller.create_join_token()
    (child,) = bytes_process_ids(controller)
    controller.kill()
    controller.start()
    assert controller.addresses == addresses
    assert not Path(f"/proc/{child}").exists() or _is_zombie(child)
    assert controller.create_join_token() != token


def test_a_killed_bytes_process_is_back_on_the_same_ports(controller: ControllerProcess) -> None:
    controller.start()
    (first,) = bytes_process_ids(controller)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: "bytes_process_restarted" in controller.log(), what=controller.log())
    (second,) = bytes_process_ids(controller)
    assert second != first
    for name in ("agent_bytes", "operator_bytes"):
        host, _, port = controller.addresses[name].rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()


def test_another_operators_token_works_and_is_shown_once(controller: ControllerProcess) -> None:
    done = run_command("operators", "create", "--dir", str(controller.folder), "--description", "night shift")
    assert done.returncode == 0
    text = controller.operator_file.read_text()
    controller.operator_file.write_text(re.sub(r'token = ".*"', f'token = "{done.stdout.strip()}"', text))
    controller.start()
    assert controller.create_join_token().startswith("lsj1.")
    assert done.stdout.strip().removeprefix("lso1.").encode() not in (controller.folder / "lineside.db").read_bytes()


def test_migrate_can_be_repeated(controller: ControllerProcess) -> None:
    for _ in range(2):
        assert run_command("migrate", "--dir", str(controller.folder)).returncode == 0


@pytest.mark.parametrize("command", [(), ("init",), ("serve",), ("migrate",), ("operators", "create")])
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    done = run_command(*command, "--help")
    assert done.returncode == 0
    assert not command or "Example:" in done.stdout


async def test_an_agent_survives_the_controller(controller: ControllerProcess) -> None:
    """Its certificate is good for the controller that comes back."""
    controller.start()
    box = Box(name="st-1", ca_certificate=controller.ca_certificate)
    response = await box.enroll(controller.api, controller.create_join_token())
    assert response.endpoints.fleet.rpartition(":")[2] == controller.addresses["fleet"].rpartition(":")[2]
    controller.kill()
    controller.start()
    again = await box.enroll(controller.api, controller.create_join_token())
    assert again.agent == "agents/st-1"


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.postgres
def test_the_first_operators_token_is_good_on_another_database(
    controller: ControllerProcess, empty_postgres_url: str
) -> None:
    controller.options = ("--database-url", empty_postgres_url)
    controller.start()
    assert controller.create_join_token().startswith("lsj1.")
