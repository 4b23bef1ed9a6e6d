"""From a student's own photograph to names with probabilities."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import NAME, register_small_net

from flowers_utils.data import FlowerData, Split
from flowers_utils.deploy import predictor as predictor_module
from flowers_utils.deploy.predictor import (
    Predictor,
    as_photo,
    photo_from,
    photo_picker,
    predict_command,
)
from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES, build_model
from flowers_utils.storage.checkpoints import save_checkpoint
from flowers_utils.transforms import eval_transform

NAMES = ("rose", "天竺葵", "sweet william", "rosé")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    split = Split("val", np.zeros((4, 3, 32, 32), np.uint8), torch.arange(4))
    data = FlowerData("folder", "test patches", NAMES, split, split, split, 36, 32)
    path = tmp_path_factory.mktemp("models") / "final.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, NAME, None)  # so that it is taken out again
        register_small_net()
        model = build_model(NAME, num_classes=4, weights=None)
        save_checkpoint(path, model, data=data, epoch=1, metrics={}, temperature=2.0)
        yield path


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor.from_checkpoint(checkpoint)


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


def test_probabilities_are_the_networks_divided_by_the_temperature(predictor, pixels):
    image = eval_transform(size=32)(Image.fromarray(pixels))
    with torch.inference_mode():
        logits = predictor.module.network(image[None])[0]
    expected = torch.softmax(logits / 2.0, dim=0)
    assert torch.allclose(predictor.probabilities([pixels])[0], expected, atol=1e-6)


def test_names_come_likeliest_first_and_sum_to_one(predictor, photo):
    predictions = predictor(photo)
    assert values(predictions) == sorted(values(predictions), reverse=True)
    assert {row.name for row in predictions} == set(NAMES)
    assert sum(values(predictions)) == pytest.approx(1, abs=1e-5)


def test_every_kind_of_input_gives_the_same_answer(predictor, photo, pixels):
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    opaque = np.dstack([pixels, np.full((60, 80), 255, np.uint8)])
    kinds = [str(photo), Image.open(photo), pixels, pixels / 255, opaque, tensor, tensor / 255]
    expected = values(predictor(photo))
    for answer in predictor(kinds):
        assert values(answer) == pytest.approx(expected, abs=1e-6)


def test_a_batch_is_many_photographs(predictor, pixels):
    answers = predictor(np.stack([pixels, pixels[::-1]]), top_k=2)
    assert [len(answer) for answer in answers] == [2, 2]
    assert values(answers[1]) == pytest.approx(values(predictor(pixels[::-1], top_k=2)), abs=1e-6)
    assert predictor([]) == []


def test_a_photograph_taken_sideways_is_turned_upright(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned a quarter clockwise
    sideways = tmp_path / "sideways.png"
    Image.fromarray(pixels).rotate(90, expand=True).save(sideways, exif=exif)
    assert np.array_equal(np.asarray(as_photo(sideways)), pixels)


@pytest.mark.parametrize(
    "stored",
    [
        lambda grey: grey,
        lambda grey: grey.astype(np.uint16),
        lambda grey: grey.astype(np.uint16) * 257,
        lambda grey: grey / 255,
        lambda grey: Image.fromarray((grey / 255).astype(np.float32)),  # as in a float TIFF
        lambda grey: torch.from_numpy(grey)[None],
    ],
)
def test_grey_levels_are_kept_however_they_are_stored(pixels, stored):
    grey = pixels[:, :, 0]
    read = np.asarray(as_photo(stored(grey)))[:, :, 1].astype(int)
    assert np.abs(read - grey).max() <= 1


def test_booleans_are_black_and_white(pixels):
    mask = pixels[:, :, 0] > 100
    for photo in (mask, torch.from_numpy(mask)[None]):
        assert np.array_equal(np.asarray(as_photo(photo))[:, :, 0], np.where(mask, 255, 0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((5, 5, 7), np.uint8), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (torch.full((3, 4, 4), -1.5), "from 0 to 1"),
        (torch.full((3, 4, 4), float("nan")), "from 0 to 1"),
        (np.full((4, 4), 300), "from 0 to 255"),
        (np.eye(4, dtype=int), "from 0 to 255"),
        (np.full((4, 4), None), "object"),
        (7, "A int is no photograph"),
        ("nowhere.jpg", "nowhere.jpg"),
    ],
)
def test_what_is_no_photograph_is_said_in_a_sentence(wrong, said):
    with pytest.raises(FlowersError, match=said):
        as_photo(wrong)


def test_the_button_is_shown_in_a_live_notebook_only(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    assert photo_picker() is None and shown == []
    monkeypatch.setattr(predictor_module, "progress_style", lambda: "widget")
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


def test_the_command_prints_a_table_and_says_what_the_model_was_trained_on(
    checkpoint, photo, capsys
):
    assert predict_command([str(photo), "--checkpoint", str(checkpoint), "--top", "2"]) == 0
    printed = capsys.readouterr().out
    assert "test patches" in printed and str(photo) in printed
    assert printed.count("%") == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_no_name_is_too_much_for_a_console(
    checkpoint, predictor, photo, monkeypatch, encoding, how
):
    odd = photo.with_name("caf\udce9 花.png")  # one byte that is not UTF-8, as Python keeps it
    odd.write_bytes(photo.read_bytes())
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    photos = [str(odd), str(odd.with_name("gone\udce9.jpg"))]
    assert predict_command([*photos, "--checkpoint", str(checkpoint), *how]) == 1
    out.seek(0)
    err.seek(0)
    printed = out.read()
    assert "gone\\udce9.jpg" in err.read() and "sweet william" in printed
    if how:
        good, bad = json.loads(printed)["results"]
        assert good["photograph"] == str(odd) and "error" in bad
        assert [tuple(row.values()) for row in good["predictions"]] == predictor(photo)


def test_a_missing_checkpoint_is_named(photo, tmp_path, capsys):
    assert predict_command([str(photo), "--checkpoint", str(tmp_path / "none.pth")]) == 1
    assert "none.pth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.onnx", "an exported ONNX file"),
        ("model.pt2", "an exported torch.export program"),
        ("flower.jpg", "a photograph"),
    ],
)
def test_what_is_no_checkpoint_is_named_and_not_to_be_deleted(tmp_path, pixels, capsys, name, said):
    given = tmp_path / name
    Image.fromarray(pixels).save(given, "JPEG")
    assert predict_command(["photo.jpg", "--checkpoint", str(given)]) == 1
    sentence = capsys.readouterr().err
    assert f"'{given}' is {said}" in sentence and "resnet18_final.pth" in sentence
    assert "delete" not in sentence
