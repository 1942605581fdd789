"""What is committed would work on any machine, and holds no secret."""

import re

import pytest

from tests.architecture.source import ROOT, tracked

HOME = re.compile(r"(?<![\w.$/])/(?:home|root|Users)/\w+")
"""Somebody's own folder."""
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=]{16}")
ADDRESS = re.compile(r"\b\w+://|--(?:extra-)?index-url|--find-links|@ file:")
BYTES_MAX = 1 << 20
"""Data and models are fetched, never committed."""

FILES = tracked()


def texts() -> dict[str, str]:
    return {path: (ROOT / path).read_text(errors="replace") for path in FILES}


def test_no_file_names_a_home_folder() -> None:
    assert {path: found[0] for path, text in texts().items() if (found := HOME.search(text))} == {}


def test_no_file_holds_a_private_key() -> None:
    assert [path for path, text in texts().items() if PRIVATE_KEY.search(text)] == []


def test_no_file_is_large() -> None:
    assert {path: size for path in FILES if (size := (ROOT / path).stat().st_size) > BYTES_MAX} == {}


def test_lock_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert ADDRESS.findall(lock) == []


def test_lock_pins_every_package_with_a_hash() -> None:
    lock = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    entries = [line for line in lock.splitlines() if line.strip() and not line.startswith("#")]
    assert entries
    assert [entry.split()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("bad", ["cd /{}/ann/lineside".format("home"), "see /{}/x".format("root")])
def test_a_home_folder_is_found(bad: str) -> None:
    assert HOME.search(bad)
