"""From a student's own photograph to names with probabilities."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from flowers_utils.deploy.predictor import Predictor, as_photo, predict_command
from flowers_utils.errors import FlowersError
from flowers_utils.models import build_model
from flowers_utils.storage.checkpoints import save_checkpoint
from flowers_utils.transforms import eval_transform


@pytest.fixture
def checkpoint(tmp_path, tiny_data):
    torch.manual_seed(0)
    model = build_model("resnet18", num_classes=4, weights=None)
    path = tmp_path / "resnet18_final.pth"
    save_checkpoint(path, model, data=tiny_data, epoch=1, metrics={}, temperature=2.0)
    return path


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
    expected = torch.softmax(logits / 2.0, dim=0)
    assert torch.allclose(predictor.probabilities([pixels])[0], expected, atol=1e-6)


def test_names_come_likeliest_first_and_sum_to_one(predictor, photo, tiny_data):
    predictions = predictor(photo)
    assert values(predictions) == sorted(values(predictions), reverse=True)
    assert {row.name for row in predictions} == set(tiny_data.class_names)
    assert sum(values(predictions)) == pytest.approx(1, abs=1e-5)


def test_every_kind_of_input_gives_the_same_answer(predictor, photo, pixels):
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [str(photo), Image.open(photo), pixels, pixels / 255, tensor, tensor / 255]
    expected = values(predictor(photo))
    for answer in predictor(kinds):
        assert values(answer) == pytest.approx(expected, abs=1e-6)


def test_a_batch_is_many_photographs(predictor, pixels):
    batch = np.stack([pixels, pixels[::-1]])
    answers = predictor(batch, top_k=2)
    assert [len(answer) for answer in answers] == [2, 2]
    assert values(answers[1]) == pytest.approx(values(predictor(pixels[::-1], top_k=2)), abs=1e-6)


def test_no_photographs_give_no_answers(predictor):
    assert predictor([]) == []


def test_a_photograph_taken_sideways_is_turned_upright(predictor, pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned a quarter clockwise
    sideways = tmp_path / "sideways.png"
    Image.fromarray(pixels).rotate(90, expand=True).save(sideways, exif=exif)
    assert np.array_equal(np.asarray(as_photo(sideways)), pixels)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "LA", "1"])
def test_unusual_colour_modes_become_rgb(predictor, pixels, mode):
    photo = as_photo(Image.fromarray(pixels).convert(mode))
    assert (photo.mode, photo.size) == ("RGB", (80, 60))


def test_transparent_parts_become_white(pixels):
    clear = np.concatenate([pixels, np.zeros_like(pixels[:, :, :1])], axis=2)
    assert np.asarray(as_photo(Image.fromarray(clear))).min() == 255


def test_sixteen_bits_are_scaled_and_not_cut_off(pixels, tmp_path):
    grey = pixels[:, :, 0]
    path = tmp_path / "sixteen.png"
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    for photo in (path, grey.astype(np.uint16) * 257):
        assert np.abs(np.asarray(as_photo(photo))[:, :, 0].astype(int) - grey).max() <= 1


def test_a_grey_array_and_a_grey_tensor_are_photographs(pixels):
    grey = pixels[:, :, 0]
    for photo in (grey, torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert np.array_equal(np.asarray(as_photo(photo))[:, :, 1], grey)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((5, 5, 7), np.uint8), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (torch.full((3, 4, 4), -1.5), "between 0 and 1"),
        (torch.full((3, 4, 4), float("nan")), "between 0 and 1"),
        (np.full((4, 4), 300), "between 0 and 255"),
        (7, "A int is no photograph"),
        ("nowhere.jpg", "nowhere.jpg"),
    ],
)
def test_what_is_no_photograph_is_said_in_a_sentence(wrong, said):
    with pytest.raises(FlowersError, match=said):
        as_photo(wrong)


def test_a_text_file_is_no_photograph(predictor, tmp_path):
    (tmp_path / "notes.jpg").write_text("not an image")
    with pytest.raises(FlowersError, match=r"notes\.jpg"):
        predictor(tmp_path / "notes.jpg")


def test_the_command_prints_a_table_and_says_what_the_model_was_trained_on(
    checkpoint, photo, capsys
):
    assert predict_command([str(photo), "--checkpoint", str(checkpoint), "--top", "2"]) == 0
    printed = capsys.readouterr().out
    assert "test patches" in printed and str(photo) in printed
    assert printed.count("%") == 2


def test_the_command_prints_json_equal_to_the_predictor(checkpoint, predictor, photo, capsys):
    assert predict_command([str(photo), "--checkpoint", str(checkpoint), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["results"][0]
    assert [(row["name"], row["probability"]) for row in result["predictions"]] == predictor(photo)


def test_one_bad_photograph_fails_the_command_but_not_the_others(checkpoint, photo, capsys):
    status = predict_command(["gone.jpg", str(photo), "--checkpoint", str(checkpoint), "--json"])
    printed = capsys.readouterr()
    bad, good = json.loads(printed.out)["results"]
    assert status == 1 and "error" in bad and len(good["predictions"]) == 4
    assert "gone.jpg" in printed.err and "Traceback" not in printed.err


def test_without_a_checkpoint_the_command_fails_with_a_sentence(photo, tmp_path, capsys):
    assert predict_command([str(photo), "--checkpoint", str(tmp_path / "none.pth")]) == 1
    assert "none.pth" in capsys.readouterr().err
