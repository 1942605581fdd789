"""Faults of an agent's folder, made for real."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.config import AgentSettings, settings_text
from agent.doctor import folder as checks
from agent.doctor.finding import Grade
from agent.storage.folder import AgentFolder, FolderLock
from tests.support import pki
from tests.support.small_disk import SmallDisk, mounted, why_not

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> AgentFolder:
    found = AgentFolder(tmp_path / "agent")
    found.create()
    found.pki.mkdir()
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if why_not():
        pytest.skip(why_not())
    with mounted(tmp_path / "disk", size_bytes=8 << 20) as found:
        yield found


def test_a_key_that_others_may_read_is_named(folder: AgentFolder) -> None:
    key = folder.pki / "key.pem"
    key.write_text("")
    key.chmod(0o600)
    assert checks.check_privacy(folder).grade is Grade.OK
    key.chmod(0o640)
    finding = checks.check_privacy(folder)
    assert finding.grade is Grade.FAIL
    assert f"chmod 600 {key}" in finding.remedy


def test_a_folder_that_others_may_look_into_is_named(folder: AgentFolder) -> None:
    folder.root.chmod(0o755)
    assert checks.check_privacy(folder).grade is Grade.WARN


def test_files_of_another_user_are_named(folder: AgentFolder) -> None:
    stranger = folder.root / "state.json"
    stranger.write_text("{}")
    if os.geteuid() != 0:
        pytest.skip("giving a file away takes root")
    os.chown(stranger, 12345, -1)
    finding = checks.check_owner(folder, user=0)
    assert finding.grade is Grade.FAIL
    assert "chown --recursive 0" in finding.remedy


def test_another_user_than_the_owner_is_told_so(folder: AgentFolder) -> None:
    assert checks.check_owner(folder, user=os.geteuid()).grade is Grade.OK
    assert checks.check_owner(folder, user=os.geteuid() + 1).grade is Grade.WARN


def test_a_full_disk_is_named(disk: SmallDisk) -> None:
    assert checks.check_writable(disk.folder).grade is Grade.OK
    assert checks.check_disk(disk.folder, reserve_bytes=1024).grade is Grade.WARN
    disk.fill()
    finding = checks.check_writable(disk.folder)
    assert finding.grade is Grade.FAIL
    assert "free some disk" in finding.remedy
    assert checks.check_disk(disk.folder, reserve_bytes=1 << 20).grade is Grade.FAIL


def test_a_disk_that_cannot_be_written_is_named(disk: SmallDisk) -> None:
    assert disk.make_read_only()
    finding = checks.check_writable(disk.folder)
    disk.make_writable()
    assert finding.grade is Grade.FAIL
    assert "Read-only" in finding.message


def test_a_held_folder_is_told_without_taking_its_lock(folder: AgentFolder) -> None:
    assert checks.check_lock(folder, running=False).grade is Grade.OK
    with FolderLock(folder):
        finding = checks.check_lock(folder, running=False)
    assert finding.grade is Grade.WARN
    assert f"kill {os.getpid()}" in finding.remedy
    with FolderLock(folder):
        pass


def test_a_damaged_state_is_named(folder: AgentFolder) -> None:
    folder.state.write_text("{")
    assert checks.check_state(folder).grade is Grade.FAIL


def test_a_spool_that_fills_up_is_named(folder: AgentFolder) -> None:
    folder.results.mkdir(parents=True)
    (folder.results / "0001.seg").write_bytes(b"x" * 900)
    results, samples = checks.check_spools(folder, 1000)
    assert results.grade is Grade.WARN
    assert "--spool-bytes" in results.remedy
    assert samples.grade is Grade.OK


def test_a_folder_of_no_agent_is_named(folder: AgentFolder) -> None:
    settings, finding = checks.read_enrolment(folder)
    assert settings is None
    assert "lineside-agent enroll" in finding.remedy
    known = AgentSettings(agent="st-1", controller="c:1", fleet="c:2", agent_bytes="c:3")
    folder.settings.write_text(settings_text(known))
    assert checks.read_enrolment(folder)[0] == known


@pytest.mark.parametrize(
    ("begin", "end", "grade", "word"),
    [
        (-10, 20, Grade.OK, ""),
        (-30, -1, Grade.FAIL, "enroll"),
        (1, 30, Grade.FAIL, "set-ntp"),
        (-29, 1, Grade.WARN, "renews by itself"),
    ],
)
def test_the_certificate_against_the_clock(folder: AgentFolder, begin: int, end: int, grade: Grade, word: str) -> None:
    ca = pki.new_authority(NOW)
    (folder.pki / "certificate.pem").write_bytes(ca.issue("st-1", begin=NOW + begin * DAY, end=NOW + end * DAY)[1])
    finding = checks.check_certificate(folder, now=NOW)
    assert finding.grade is grade
    assert word in finding.remedy


def test_a_missing_certificate_is_named(folder: AgentFolder) -> None:
    assert "lineside tokens create" in checks.check_certificate(folder, now=NOW).remedy
