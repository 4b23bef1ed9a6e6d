"""From a student's own photograph to names with probabilities."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import small_data, small_model

from flowers_utils.__main__ import main
from flowers_utils.deploy.predictor import Predictor, photo_from
from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    model_from_checkpoint,
    save_checkpoint,
)
from tests.benchmarks.textbook import eval_transform

NAMES, SIZE = ("rose", "天竺葵", "sweet william", "rosé"), 32


@pytest.fixture
def checkpoint(tmp_path):
    path, data = tmp_path / "final.pth", replace(small_data(), class_names=NAMES)
    save_checkpoint(path, small_model(), data=data, epoch=1, metrics={}, temperature=2.0)
    return path


@pytest.fixture
def pixels():
    """A smooth upright picture `(60, 80, 3)`, red growing to the right and green downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, 80), np.linspace(0, 255, 60))
    return np.stack([across, down, np.full_like(across, 90)], axis=2).astype(np.uint8)


@pytest.fixture
def photo(tmp_path, pixels):
    """Of a camera that was held so that the picture must be turned a quarter clockwise."""
    path, exif = tmp_path / "photo.png", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).rotate(90, expand=True).save(path, exif=exif)
    return path


@pytest.mark.parametrize("mirrored", [False, True])
def test_probabilities_are_those_of_plain_pytorch(checkpoint, photo, pixels, mirrored):
    model = model_from_checkpoint(load_checkpoint(checkpoint))
    image = eval_transform(SIZE)(Image.fromarray(pixels))[None]
    with torch.inference_mode():
        logits, twin = model(image), model(image.flip(3))
    assert not torch.allclose(logits, twin, atol=1e-3)
    expected = (((logits + twin) / 2 if mirrored else logits) / 2.0).softmax(dim=1)[0]
    for name, probability, number in Predictor(checkpoint, mirrored=mirrored)(photo):
        assert probability == pytest.approx(float(expected[number]), abs=1e-5)
        assert name == NAMES[number]


def test_a_path_and_an_opened_image_give_the_same_answer(checkpoint, photo):
    predictor = Predictor(checkpoint)
    with Image.open(photo) as opened:
        assert predictor(opened) == predictor(str(photo)) and len(predictor(opened, top_k=2)) == 2


def test_an_uploaded_photograph_comes_before_a_path_and_a_path_before_none(photo, pixels):
    upload = {"name": "mine.png", "content": memoryview(photo.read_bytes())}
    for value in ((upload,), {"mine.png": {"content": upload["content"]}}):  # ipywidgets 8 and 7
        mine = photo_from(SimpleNamespace(value=value), "nowhere.jpg")
        assert np.array_equal(np.asarray(mine), pixels)
    assert np.array_equal(np.asarray(photo_from(SimpleNamespace(value=()), photo)), pixels)
    assert photo_from(None) is None
    with pytest.raises(FlowersError, match=r"notes\.txt"):
        photo_from(SimpleNamespace(value=({"name": "notes.txt", "content": b"text"},)))


def test_the_command_names_flowers_compares_runs_or_says_what_is_wrong(
    tmp_path, checkpoint, photo, capsys
):
    assert main(["predict", str(photo), "--checkpoint", str(checkpoint)]) == 0
    assert {"sweet", "patches"} < set(capsys.readouterr().out.split())
    (run := tmp_path / "run.json").write_text('{"phases": {"phase1": {"seconds": null}}}')
    assert main(["compare", str(run), str(run)]) == 0
    assert "same" in capsys.readouterr().out
    for words, told in (
        (["compare", str(run), "gone.json"], "'gone.json' cannot be read"),
        (["predict", "gone.jpg", "--checkpoint", str(checkpoint)], "'gone.jpg' cannot be opened"),
        (["predict", "photo.jpg", "--checkpoint", "a.onnx"], "There is no file 'a.onnx'"),
    ):
        assert main(words) == 1
        assert told in capsys.readouterr().err
