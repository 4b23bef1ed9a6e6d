"""From a student's own photograph to names with probabilities."""

import io
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


@pytest.fixture
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
    expected = torch.softmax(logits / 2.0, dim=0).sort(descending=True).values.tolist()
    assert values(predictor(pixels)) == pytest.approx(expected, abs=1e-6)


def test_a_prepared_photograph_is_what_the_network_sees(predictor, photo):
    # the lesson's cell for an own photograph shows, explains and names the prepared one
    prepared = predictor.prepare(photo_from(None, photo))
    assert (prepared.shape, prepared.dtype) == ((3, 32, 32), torch.uint8)
    assert values(predictor(prepared)) == pytest.approx(values(predictor(photo)), abs=1e-6)


def test_every_kind_of_input_gives_the_same_answer(predictor, photo, pixels):
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [str(photo), Image.open(photo), pixels, tensor, tensor / 255]
    expected = values(predictor(photo))
    for answer in [*predictor(kinds), *predictor(np.stack([pixels, pixels]))]:
        assert values(answer) == pytest.approx(expected, abs=1e-6)
    assert len(predictor(photo, top_k=2)) == 2 and predictor([]) == []


def test_a_photograph_taken_sideways_is_turned_upright(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned a quarter clockwise
    sideways = tmp_path / "sideways.png"
    Image.fromarray(pixels).rotate(90, expand=True).save(sideways, exif=exif)
    assert np.array_equal(np.asarray(as_photo(sideways)), pixels)


@pytest.mark.parametrize(
    "stored",
    [
        lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
        lambda grey: Image.fromarray((grey / 255).astype(np.float32)),  # as in a float TIFF
        lambda grey: torch.from_numpy(grey)[None],
    ],
)
def test_grey_levels_are_kept_however_they_are_stored(pixels, stored):
    grey = pixels[:, :, 0]
    read = np.asarray(as_photo(stored(grey)))[:, :, 1].astype(int)
    assert np.abs(read - grey).max() <= 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((5, 5, 7), np.uint8), "channels"),
        (torch.full((3, 4, 4), float("nan")), "between 0 and 1"),
        (torch.full((3, 4, 4), -2.1), "perhaps they are normalised"),
        (7, "no photograph that can be used"),
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


def test_the_command_names_what_it_can_on_any_console(checkpoint, photo, monkeypatch):
    odd = photo.with_name("caf\udce9 花.png")  # one byte that is not UTF-8, as Python keeps it
    odd.write_bytes(photo.read_bytes())
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    photos = [str(odd), str(odd.with_name("gone\udce9.jpg"))]
    assert predict_command([*photos, "--checkpoint", str(checkpoint)]) == 1
    out.seek(0)
    err.seek(0)
    printed = out.read()
    assert "gone\\udce9.jpg" in err.read()
    assert "sweet william" in printed and "test patches" in printed


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "flower.jpg"])
def test_what_is_no_checkpoint_is_named_and_not_to_be_deleted(tmp_path, pixels, capsys, name):
    given = tmp_path / name
    Image.fromarray(pixels).save(given, "JPEG")
    assert predict_command(["photo.jpg", "--checkpoint", str(given)]) == 1
    sentence = capsys.readouterr().err
    assert f"'{given}' is an exported model or" in sentence and "resnet18_final.pth" in sentence
    assert "delete" not in sentence
