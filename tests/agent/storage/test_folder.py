"""One process per folder."""

from pathlib import Path

import pytest

from agent.domain.errors import Reason, StateError
from agent.storage.folder import AgentFolder, FolderLock


def test_a_second_process_is_told_to_go_elsewhere(tmp_path: Path) -> None:
    folder = AgentFolder(tmp_path / "a")
    folder.create()
    with FolderLock(folder):
        with pytest.raises(StateError) as caught, FolderLock(AgentFolder(tmp_path / "a")):
            pass
        assert caught.value.reason is Reason.STATE_LOCKED
        assert caught.value.remedy
    with FolderLock(folder):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError) as caught:
        AgentFolder(tmp_path / "file" / "a").create()
    assert caught.value.field == "--dir"
