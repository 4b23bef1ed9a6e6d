"""Exported files stand alone and agree with PyTorch; the model card says what the values say."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from small_training import small_data, small_model

from flowers_utils.deploy import export
from flowers_utils.deploy.model_card import write_model_card
from flowers_utils.deploy.predictor import Deployable
from flowers_utils.storage.checkpoints import load_checkpoint, save_checkpoint

onnxruntime = pytest.importorskip("onnxruntime")
SIZE, NAMES = 32, ("rosé", "|<b>*daisy*</b>", "tulip", "$Rosa$ 5$")
DATA = replace(small_data(), class_names=NAMES)

# What an application would run, with nothing of this lesson and without PyTorch.
APPLICATION = """
import sys, numpy as np, onnxruntime
path, photographs, answers = sys.argv[1:]
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
np.save(answers, session.run(None, {"images": np.load(photographs)})[0])
"""


def final_in(folder) -> Path:
    """A network with random weights, told to be over-confident by a temperature of 1.7."""
    path, extra = folder / "small_final.pth", {"temperature": 1.7, "head_saw_val": True}
    save_checkpoint(path, small_model(), data=DATA, epoch=1, metrics={}, **extra)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return final_in(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def exports(checkpoint):
    """All three exports, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "INT8_TOLERANCE", 1.0)  # its accuracy is chance, so it may be lower
        return export.export_model(checkpoint, DATA)


def test_three_files_say_what_the_model_is_without_places_of_this_computer(exports, checkpoint):
    names = ["small_final.pt2", "small_final.onnx", "small_int8.onnx"]
    assert sorted(p.name for p in checkpoint.parent.iterdir()) == sorted([checkpoint.name, *names])
    place = export.__file__.rpartition("flowers_utils")[0].encode()
    for values, name in zip(exports, names, strict=True):
        assert Path(values["path"]).name == name in values["sentence"]
        content = Path(values["path"]).read_bytes()
        assert place not in content and b"site-packages" not in content
    answers = export.open_export(Path(exports[2]["path"]))(DATA.val.images)
    assert np.allclose(answers.sum(axis=1), 1, atol=1e-4)  # 8 bits, and still probabilities
    assert "both are too high" in exports[2]["sentence"]  # this head has learned from val
    metadata = onnxruntime.InferenceSession(exports[1]["path"]).get_modelmeta().custom_metadata_map
    torch.export.load(exports[0]["path"], extra_files=(extra := {"model.json": ""}))
    assert metadata == json.loads(extra["model.json"])
    assert json.loads(metadata["class_names"]) == list(NAMES)


def test_a_fresh_process_agrees_with_pytorch_on_any_number(exports, checkpoint, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (5, 3, SIZE, SIZE), dtype=np.uint8)
    photographs, answers = tmp_path / "photographs.npy", tmp_path / "answers.npy"
    np.save(photographs, images)
    command = [sys.executable, "-c", APPLICATION, exports[1]["path"], photographs, answers]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    # The tests of the predictor show that this is correct.
    expected = Deployable(load_checkpoint(checkpoint))(torch.from_numpy(images)).numpy()
    assert np.abs(np.load(answers) - expected).max() < 1e-5


def test_a_file_that_answers_differently_is_not_kept(tmp_path, monkeypatch):
    final = final_in(tmp_path)
    final.with_suffix(".onnx").write_bytes(b"of an earlier run")
    wrong = np.full((1, len(NAMES)), np.nan, dtype=np.float32)
    for name in ("_write_program", "_write_onnx"):
        monkeypatch.setattr(export, name, lambda part, *_: part.write_bytes(b"x"))
    monkeypatch.setattr(export, "open_export", lambda _: lambda images: wrong)
    found = export.export_model(final, DATA)
    assert [values["path"] for values in found] == [None, None]  # and no 8 bits of another file
    assert all("differ from PyTorch's by at most nan" in values["sentence"] for values in found)
    assert final.with_suffix(".onnx").read_bytes() == b"of an earlier run"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small_final.onnx", "small_final.pth"]


def test_an_exporter_that_fails_is_explained_and_the_lesson_goes_on(tmp_path, monkeypatch):
    fail = Mock(side_effect=LookupError("An error\n in 'x'"))  # of a type that nobody expects
    monkeypatch.setattr(torch.onnx, "export", fail)
    monkeypatch.setattr(torch.export, "export", fail)
    for failed in export.export_model(final_in(tmp_path), DATA):
        assert failed["path"] is None and "\n" not in failed["sentence"]
        assert "LookupError" in failed["sentence"] and "pip install" in failed["sentence"]


@pytest.mark.parametrize(("after", "kept"), [(0.795, True), (0.794, False)])
def test_int8_is_kept_if_it_loses_half_a_point_at_most(tmp_path, monkeypatch, after, kept):
    scores = iter([0.80, after])  # of the float file, then of the 8-bit one
    monkeypatch.setattr(export, "_accuracy", lambda *_: next(scores))
    monkeypatch.setattr(export, "_quantize", lambda source, target, _: target.write_bytes(b"8"))
    out, write = tmp_path / "int8.onnx", partial(export._write_int8, tmp_path, DATA, False)
    values = export._export("8 bits", out, write)
    assert (values["path"] is not None) == out.exists() == kept
    assert ("was not kept" in values["sentence"]) != kept


@pytest.mark.parametrize(
    ("source", "said", "left_out"),
    [
        ("flowers102", ("17 others: epoch", "`ResNet18_Weights.IMAGENET1K_V1`"), "top5"),
        ("practice", ("17 others (then the head learned from these", "mean nothing"), "ImageNet"),
    ],
)
def test_the_model_card_says_what_the_values_say(checkpoint, tmp_path, source, said, left_out):
    content = load_checkpoint(checkpoint) | {"architecture": "resnet18"}
    content["head_saw_val"] = source == "practice"
    content["data"] |= {"source": source, "title": "my *photographs*"}
    estimate = {"value": 0.8125, "low": 0.7, "high": 0.9}
    recall = {"$Rosa$ 5$": 0.25, "daisy": 1.0, "never seen": None, NAMES[1]: 0.75}
    metrics = {"top1": estimate, "top5": None, "mean_per_class": estimate}
    metrics |= {"count": 20, "ece": 0.031, "recall": recall}
    run = {"data": {"images": {"train": 31, "val": 17}}, "device": "CPU (x86_64, test)"}
    run |= {"profile": "quick", "recipe": "lesson", "seed": 42, "exports": []}
    path = tmp_path / "card.md"
    card = write_model_card(path, checkpoint=content, metrics=metrics, run=run)
    for words in (
        *said,
        "| top1 | 81.2% | 70.0% to 90.0% |",
        "Trained on 31 photographs, chosen on 17 others",
        "/ 1.700)",
        r"Lowest recall: \$Rosa\$ 5\$ (25%), \|\<b\>\*daisy\*\</b\> (75%), daisy (100%).",
        r"**resnet18, trained on my \*photographs\***",  # no heading, as it would be in the outline
    ):
        assert words in card
    assert left_out not in card and path.read_text("utf-8").startswith("# resnet18, ")
