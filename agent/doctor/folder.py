"""Checks of the agent's folder: whose it is, whether it can be written, what it says, how full it is."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from agent import limits
from agent.config import AgentSettings, read_settings
from agent.doctor.finding import Finding, fail, megabytes, warn, well
from agent.domain.errors import AgentError
from agent.storage import state_codec
from agent.storage.folder import AgentFolder

_ENROL = "run `lineside-agent enroll` on the folder with a new join token (`lineside tokens create`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the agent that uses the folder is told."""

    spool_bytes: int = limits.SPOOL_BYTES_MAX
    reserve_bytes: int = limits.DISK_RESERVE_BYTES


def read_enrolment(folder: AgentFolder) -> tuple[AgentSettings | None, Finding]:
    """Who the folder says the agent is; None where that cannot be read."""
    try:
        settings = read_settings(folder.settings)
    except AgentError as error:
        return None, fail("enrolment", error.message, error.remedy)
    return settings, well("enrolment", f"agents/{settings.agent} of {settings.controller}")


def check_folder(folder: AgentFolder, *, bounds: Bounds, running: bool) -> Iterator[Finding]:
    """Every check of this module but the certificate's."""
    if not folder.root.is_dir():
        yield fail(
            "folder", f"{folder.root} is no folder", "name the agent's folder with --dir, or enrol into it first"
        )
        return
    yield check_owner(folder, user=os.geteuid())
    yield check_privacy(folder)
    yield check_writable(folder.root)
    yield check_lock(folder, running=running)
    yield check_disk(folder.root, reserve_bytes=bounds.reserve_bytes)
    yield check_state(folder)
    yield from check_spools(folder, bounds.spool_bytes)


def check_owner(folder: AgentFolder, *, user: int) -> Finding:
    owner = folder.root.stat().st_uid
    strangers = [path for path in _entries(folder) if path.lstat().st_uid != owner]
    if strangers:
        return fail(
            "ownership",
            f"{strangers[0]} belongs to another user than the folder, and {len(strangers) - 1} more do",
            f"give them to one user: chown --recursive {owner} {folder.root}",
        )
    if user != owner:
        return warn(
            "ownership",
            f"the folder belongs to user {owner}, and this is user {user}",
            f"run this command as the user that runs the agent: setpriv --reuid {owner} lineside-agent doctor ...",
        )
    return well("ownership", f"all of it is user {owner}'s, who runs this")


def check_privacy(folder: AgentFolder) -> Finding:
    key = folder.pki / "key.pem"
    open_to_others = [path for path in (folder.root, key) if path.exists() and path.stat().st_mode & 0o077]
    if key in open_to_others:
        return fail("privacy", f"others may read {key}", f"take that right away: chmod 600 {key}; then enrol anew")
    if open_to_others:
        return warn("privacy", f"others may look into {folder.root}", f"take that right away: chmod 700 {folder.root}")
    return well("privacy", "key and folder are the owner's alone")


def check_writable(root: Path) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=root, prefix=".doctor-") as probe:
            probe.write(b"x" * (64 << 10))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return fail(
            "writing",
            f"{root} cannot be written: {error.strerror}",
            "free some disk, mount the file system for writing, or run this as the folder's owner",
        )
    return well("writing", f"{root} can be written")


def check_lock(folder: AgentFolder, *, running: bool) -> Finding:
    if running:
        return well("lock", "an agent runs on the folder and answers")
    holder = _lock_holder(folder)
    if holder:
        return warn(
            "lock",
            f"process {holder} holds the folder and does not answer",
            f"look at what it does (journalctl, or its log), and start it anew: kill {holder}",
        )
    return well("lock", "no agent runs on the folder")


def check_disk(root: Path, *, reserve_bytes: int) -> Finding:
    found = os.statvfs(root)
    free_bytes = found.f_bavail * found.f_frsize
    text = f"{megabytes(free_bytes)} of {megabytes(found.f_blocks * found.f_frsize)} are free"
    remedy = "free some disk, or move the folder to a larger one"
    if free_bytes < reserve_bytes:
        need = f"{megabytes(reserve_bytes)} stay free, so no version can be downloaded"
        return fail("disk", f"{text}; {need}", remedy)
    if found.f_files and found.f_favail < limits.ARTIFACT_FILES_MAX:
        return fail(
            "disk", f"{found.f_favail} more files can be made", "remove files: the file system has no more room"
        )
    if free_bytes < limits.DOCTOR_DISK_BYTES_MIN:
        return warn("disk", text, f"{remedy}: a large version may not fit beside the one that serves")
    return well("disk", text)


def check_state(folder: AgentFolder) -> Finding:
    try:
        saved = state_codec.decode(folder.state.read_bytes())
    except FileNotFoundError:
        return well("state", "nothing has served yet")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return fail(
            "state",
            f"{folder.state} cannot be read: {error!r}",
            "start the agent: it sets the file aside and asks the controller what to serve",
        )
    failed = [failure for failure in saved.failures if failure.message]
    if failed:
        first = failed[0]
        return warn(
            "state",
            f"version {first.version} of {first.slot} failed: {first.message}",
            "mend what it names, then offer the version again with `lineside rollouts`",
        )
    return well("state", f"{len(saved.serving)} slots served when it was saved last")


def check_spools(folder: AgentFolder, spool_bytes: int) -> Iterator[Finding]:
    for name, path in (("results", folder.results), ("samples", folder.samples)):
        held_bytes = sum(_size(each) for each in path.glob("*")) if path.is_dir() else 0
        text = f"{megabytes(held_bytes)} of {megabytes(spool_bytes)}"
        if held_bytes > limits.DOCTOR_SPOOL_SHARE * spool_bytes:
            yield warn(
                f"spool of {name}",
                f"{text} wait for the controller; the oldest {name} are dropped when it is full",
                "let the agent reach its controller (see the checks below), or run it with a larger --spool-bytes",
            )
        else:
            yield well(f"spool of {name}", text)


def check_certificate(folder: AgentFolder, *, now: datetime) -> Finding:
    """The agent's own certificate against the box's clock."""
    path = folder.pki / "certificate.pem"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        return fail("certificate", f"{path} cannot be read: {error}", _ENROL)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return fail(
            "certificate",
            f"it is valid from {begin:%Y-%m-%d %H:%M} UTC on, and the clock says {now:%Y-%m-%d %H:%M}",
            "set the clock of this box, for example: timedatectl set-ntp true",
        )
    if now >= end:
        return fail(
            "certificate", f"it expired at {end:%Y-%m-%d %H:%M} UTC", f"{_ENROL}; first see that the clock is right"
        )
    if now > begin + (end - begin) * limits.DOCTOR_LIFETIME_SHARE:
        return warn(
            "certificate",
            f"it expires at {end:%Y-%m-%d %H:%M} UTC and should have been renewed long ago",
            "let the running agent reach its controller (see the checks below): it renews by itself",
        )
    return well("certificate", f"valid until {end:%Y-%m-%d %H:%M} UTC")


def _entries(folder: AgentFolder) -> Iterator[Path]:
    for top, folders, files in os.walk(folder.root):
        yield from (Path(top) / name for name in (*folders, *files))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # delivered meanwhile


def _lock_holder(folder: AgentFolder) -> int:
    """The process that holds the folder's lock, 0 where none does; without taking it, not even for a moment."""
    inodes = {str(path.stat().st_ino) for path in (folder.lock, folder.root) if path.exists()}
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        words = line.split()
        if "FLOCK" in words and "WRITE" in words:
            place = words.index("WRITE")
            if words[place + 2].rpartition(":")[2] in inodes:
                return int(words[place + 1])
    return 0
