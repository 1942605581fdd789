"""The words of preprocessing, in a file and on the command line."""

from pathlib import Path

import pytest

from controlplane.cli.preprocessing import PreprocessingOptions, preprocessing_of
from controlplane.client import InputPreprocessing, InvalidInputError, Preprocessing, read_preprocessing

WHOLE = """
shape = "1..8,3,?,?"
layout = "nhwc"
type = "u8"
size = "1080x1920"
resize = "linear:224x224"
reverse_channels = true
mean = [123.675, 116.28, 103.53]
scale = 58.4
model_layout = "NCHW"
[model_info]
labels = ["ok", "deep scratch"]
confidence_threshold = 0.5
"""
STEPS = InputPreprocessing(
    shape="1..8,3,?,?",
    layout="NHWC",
    element_type="u8",
    size=(1080, 1920),
    resize="linear",
    resize_to=(224, 224),
    reverse_channels=True,
    mean=(123.675, 116.28, 103.53),
    scale=(58.4,),
    model_layout="NCHW",
)


def written(folder: Path, text: str) -> Path:
    path = folder / "p.toml"
    path.write_text(text)
    return path


def test_a_file_says_everything(tmp_path: Path) -> None:
    wanted = Preprocessing(inputs={"": STEPS}, model_info={"labels": "ok deep_scratch", "confidence_threshold": "0.5"})
    assert read_preprocessing(written(tmp_path, WHOLE)) == wanted


def test_options_say_the_same() -> None:
    options = PreprocessingOptions(
        input_shape=("1..8, 3,?,?",),
        input_layout=("NHWC",),
        input_type=("u8",),
        input_size=("1080x1920",),
        resize=("linear:224x224",),
        reverse_channels=True,
        mean=("123.675,116.28,103.53",),
        scale=("58.4",),
        model_layout=("NCHW",),
        model_info=("labels=ok deep_scratch", "confidence_threshold=0.5"),
    )
    assert preprocessing_of(options) == Preprocessing(
        inputs={"": STEPS}, model_info={"labels": "ok deep_scratch", "confidence_threshold": "0.5"}
    )


def test_nothing_said_is_nothing_embedded() -> None:
    assert not preprocessing_of(PreprocessingOptions())


def test_inputs_are_named_in_both(tmp_path: Path) -> None:
    path = written(tmp_path, '[inputs."left:0"]\ntype = "u8"\nmean = 1\n[inputs.right]\ntype = "u8"\n')
    options = PreprocessingOptions(preprocess=path, mean=("left:0=5", "right=1,2,3"))
    assert preprocessing_of(options).inputs == {
        "left:0": InputPreprocessing(element_type="u8", mean=(5.0,)),
        "right": InputPreprocessing(element_type="u8", mean=(1.0, 2.0, 3.0)),
    }


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ('layout = "NHWN"', "layout", "no layout"),
        ('type = "uint8"', "type", "not known"),
        ('shape = "1,,3"', "shape", "no shape"),
        ('shape = "-1,3"', "shape", "no shape"),
        ('resize = "bilinear"', "resize", "not known"),
        ('resize = "linear:224"', "resize", "no size"),
        ('size = "0x4"\nresize = "linear"', "size", "no size"),
        ('size = "4x4"', "size", "without a resize"),
        ("scale = [1, 0, 1]", "scale", "divisor is 0"),
        ('mean = ["a"]', "mean", "no number"),
        ("layout = 4", "layout", "no text"),
        ('reverse_channels = "yes"', "reverse_channels", "neither true nor false"),
        ('colour = "red"', "colour", "no such key"),
        ("[inputs.image]\ncolour = 1", "inputs.image.colour", "no such key"),
        ("inputs = 3", "inputs", "not a table"),
        ('type = "u8"\n[inputs.image]\ntype = "u8"', "inputs", "with and without the name"),
        ('[model_info]\n"a b" = 1', "model_info", "no key"),
        ("type", "preprocess", "no TOML"),
    ],
)
def test_each_wrong_word_is_refused_by_its_key(tmp_path: Path, text: str, field: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_preprocessing(written(tmp_path, text))
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (PreprocessingOptions(mean=("1", "2")), "mean"),
        (PreprocessingOptions(model_info=("labels",)), "model_info"),
        (PreprocessingOptions(model_info=("a=1", "a=2")), "a"),
        (PreprocessingOptions(preprocess=Path("/nowhere.toml")), "preprocess"),
        (PreprocessingOptions(model_info=(f"labels={'x' * 70_000}",)), "model_info"),
    ],
)
def test_wrong_options_are_refused(options: PreprocessingOptions, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        preprocessing_of(options)
    assert caught.value.field == field
    assert caught.value.remedy
