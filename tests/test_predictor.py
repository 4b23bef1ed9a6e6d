"""From a student's own photograph to names with probabilities."""

import io
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import NAME, register_small_net, small_data, small_model

from flowers_utils.__main__ import main
from flowers_utils.deploy import predictor as predictor_module
from flowers_utils.deploy.predictor import Predictor, as_photo, photo_from, photo_picker
from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    model_from_checkpoint,
    save_checkpoint,
)
from flowers_utils.transforms import eval_transform

NAMES, SIZE = ("rose", "天竺葵", "sweet william", "rosé"), 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path, data = tmp_path_factory.mktemp("models") / "final.pth", small_data()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, NAME, None)  # so that it is taken out again
        register_small_net()
        about = {"epoch": 1, "metrics": {}, "temperature": 2.0}
        save_checkpoint(path, small_model(), data=replace(data, class_names=NAMES), **about)
        yield path


@pytest.fixture
def predictor(checkpoint):
    return Predictor(checkpoint)


@pytest.fixture
def pixels():
    """A smooth upright picture `(60, 80, 3)`, red growing to the right and green downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, 80), np.linspace(0, 255, 60))
    return np.stack([across, down, np.full_like(across, 90)], axis=2).astype(np.uint8)


@pytest.fixture
def photo(tmp_path, pixels):
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def values(predictions):
    return [row.probability for row in predictions]


def by_hand(checkpoint, photo, *, mirrored):
    """What the notebook shows in PyTorch's own words: logits / temperature, softmax."""
    content = load_checkpoint(checkpoint)
    model = model_from_checkpoint(content)
    image = eval_transform(size=content["image_size"])(Image.open(photo))[None]
    with torch.inference_mode():
        logits = model(image)
        if mirrored:
            logits = (logits + model(image.flip(3))) / 2
    return torch.softmax(logits / 2.0, dim=1)[0].tolist()


@pytest.mark.parametrize("mirrored", [False, True])
def test_probabilities_are_those_of_plain_pytorch(checkpoint, photo, mirrored):
    expected = by_hand(checkpoint, photo, mirrored=mirrored)
    assert expected != pytest.approx(by_hand(checkpoint, photo, mirrored=not mirrored), abs=1e-4)
    for name, probability, number in Predictor(checkpoint, mirrored=mirrored)(photo):
        assert probability == pytest.approx(expected[number], abs=1e-5) and name == NAMES[number]


def test_a_prepared_photograph_is_what_the_network_gets(predictor, photo):
    # the lesson's cell for an own photograph shows, explains and names the prepared one
    prepared = predictor.prepare(photo_from(None, photo))
    assert (prepared.shape, prepared.dtype) == ((3, SIZE, SIZE), torch.uint8)
    assert values(predictor(prepared)) == pytest.approx(values(predictor(photo)), abs=1e-6)


def test_every_kind_of_input_gives_the_same_answer(predictor, photo, pixels):
    row = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    row.flags.writeable = False  # as the rows of a split are
    with Image.open(photo) as opened:
        answers = predictor([str(photo), opened, row, torch.from_numpy(row.copy())])
    expected = values(predictor(photo))
    assert all(values(answer) == pytest.approx(expected, abs=1e-6) for answer in answers)
    assert len(answers) == 4 and len(predictor(photo, top_k=2)) == 2 and predictor([]) == []


def test_a_photograph_is_opened_as_those_of_the_training_are(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned a quarter clockwise
    sideways = tmp_path / "sideways.png"
    Image.fromarray(pixels).rotate(90, expand=True).save(sideways, exif=exif)
    for given in (sideways, Image.open(sideways)):
        assert np.array_equal(np.asarray(as_photo(given)), pixels)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((5, 5, 3), np.uint8), "uint8 pixels of shape"),
        (torch.full((3, 4, 4), 0.5), "float32 values"),
        (7, "A int with"),
        ("nowhere.jpg", "nowhere.jpg"),
    ],
)
def test_what_is_no_photograph_is_explained_in_a_sentence(wrong, said):
    with pytest.raises(FlowersError, match=said):
        as_photo(wrong)


def test_the_button_is_shown_only_where_somebody_can_press_it(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    assert photo_picker() is None and shown == []
    monkeypatch.setattr(predictor_module, "is_watched", lambda: True)
    button = photo_picker()
    assert shown == [button] and button.value == ()


def test_an_uploaded_photograph_comes_before_a_path_and_a_path_before_none(photo, pixels):
    upload = {"name": "mine.png", "content": memoryview(photo.read_bytes())}
    mine = photo_from(SimpleNamespace(value=(upload,)), "nowhere.jpg")
    assert np.array_equal(np.asarray(mine), pixels)
    nothing_uploaded = SimpleNamespace(value=())
    assert np.array_equal(np.asarray(photo_from(nothing_uploaded, photo)), pixels)
    assert photo_from(None) is None and photo_from(nothing_uploaded) is None
    with pytest.raises(FlowersError, match=r"notes\.txt"):
        photo_from(SimpleNamespace(value=({"name": "notes.txt", "content": b"text"},)))


def test_the_command_names_what_it_can_on_any_console(checkpoint, photo, monkeypatch):
    odd = photo.with_name("caf\udce9 花.png")  # one byte that is not UTF-8, as Python keeps it
    odd.write_bytes(photo.read_bytes())
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    err = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    photos = [str(odd), str(odd.with_name("gone\udce9.jpg"))]
    assert main(["predict", *photos, "--mirrored", "--checkpoint", str(checkpoint)]) == 1
    for stream in (out, err):
        stream.seek(0)
    printed = out.read()
    assert "gone\\udce9.jpg" in err.read()
    assert "sweet william" in printed and "test patches" in printed


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "flower.jpg"])
def test_what_is_no_checkpoint_is_named_and_not_to_be_deleted(tmp_path, pixels, capsys, name):
    given = tmp_path / name
    Image.fromarray(pixels).save(given, "JPEG")
    assert main(["predict", "photo.jpg", "--checkpoint", str(given)]) == 1
    sentence = capsys.readouterr().err
    assert f"'{given}' is no checkpoint" in sentence and "resnet18_final.pth" in sentence
    assert "delete" not in sentence


def test_the_command_compares_two_files_or_says_what_is_wrong(tmp_path, capsys):
    for name, content in (
        ("a.json", '{"phases": {"phase1": {"seconds": null}}}'),
        ("b.json", "[]"),
    ):
        (tmp_path / name).write_text(content)
    assert main(["compare", *[str(tmp_path / "a.json")] * 2]) == 0
    assert "same" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 1
    assert "b.json" in capsys.readouterr().err
