"""trainers.toml: what it may say, and what is refused."""

from pathlib import Path

import pytest

from controlplane.domain.errors import FieldInvalidError
from controlplane.training.configuration import load_trainers, reference_trainers


def test_without_a_file_there_are_those_that_come_with_the_controller(tmp_path: Path) -> None:
    trainers = load_trainers(tmp_path / "trainers.toml")
    assert [trainer.id for trainer in trainers] == ["finetune", "head", "quantize"]
    assert set(trainers) == set(reference_trainers())


def test_a_trainer_is_added_and_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "trainers.toml"
    path.write_text(
        '[trainers.net]\ncommand = ["/opt/net", "-v"]\ntime_limit = "6h"\nmemory_mib = 64\noutput_mib = 2\n'
        'network = true\nread_paths = ["/opt"]\nenvironment = { B = "2", A = "1" }\ndescription = "d"\n'
        '[trainers.head]\ncommand = ["/opt/head"]\n'
    )
    found = {trainer.id: trainer for trainer in load_trainers(path)}
    assert sorted(found) == ["finetune", "head", "net", "quantize"]
    net = found["net"]
    assert (net.command, net.time_limit_seconds, net.memory_bytes_max) == (("/opt/net", "-v"), 21600.0, 64 << 20)
    assert (net.output_bytes_max, net.network, net.read_paths) == (2 << 20, True, ("/opt",))
    assert net.environment == (("A", "1"), ("B", "2"))
    assert "environment" not in repr(net)
    assert found["head"].command == ("/opt/head",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[trainers", "cannot be read"),
        ("[other]\n", "beside"),
        ("trainers = 1", "beside"),
        ("[trainers]\nnet = 1", "no table"),
        ("[trainers.net]\n", "no command"),
        ('[trainers.net]\ncommand = "x"', "command"),
        ("[trainers.net]\ncommand = [1]", "list of texts"),
        ('[trainers.net]\ncommand = ["x"]\nmemory_gib = 1', "memory_gib"),
        ('[trainers.net]\ncommand = ["x"]\nmemory_mib = true', "memory_mib"),
        ('[trainers.net]\ncommand = ["x"]\nmemory_mib = 0', "memory_mib"),
        ('[trainers.net]\ncommand = ["x"]\ntime_limit = "soon"', "soon"),
        ('[trainers.net]\ncommand = ["x"]\ntime_limit = "300d"', "time_limit"),
        ('[trainers.net]\ncommand = ["x"]\nread_paths = ["here"]', "not absolute"),
        ('[trainers."Net!"]\ncommand = ["x"]', "Net!"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trainers.toml"
    path.write_text(text)
    with pytest.raises(FieldInvalidError) as refusal:
        load_trainers(path)
    assert said in str(refusal.value)
    assert refusal.value.field.startswith("trainers.toml")
    assert refusal.value.remedy
