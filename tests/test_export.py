"""Exported files stand alone and agree with PyTorch; the model card says what the values say."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import NAME, register_small_net, small_data, small_model

from flowers_utils.deploy import export
from flowers_utils.deploy.model_card import write_model_card
from flowers_utils.deploy.predictor import Deployable
from flowers_utils.models import BACKBONES
from flowers_utils.storage.checkpoints import load_checkpoint, save_checkpoint

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
SIZE, NAMES = 32, ("rosé", "|<b>*daisy*</b>", "tulip", "$Rosa$ 5$")

# What an application would run, with nothing of this lesson.
APPLICATION = """
import sys
import numpy as np
path, photographs, answers = sys.argv[1:]
if path.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    run = lambda images: session.run(None, {"images": images})[0]
else:
    import torch
    module = torch.export.load(path).module()
    run = lambda images: module(torch.from_numpy(images)).detach().numpy()
np.save(answers, run(np.load(photographs)))
"""


@pytest.fixture(scope="module", autouse=True)
def known_network():
    """The name of the tests' small network is known while this module runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, NAME, None)  # so that it is taken out again
        register_small_net()
        yield


@pytest.fixture(scope="module")
def data():
    return replace(small_data(), class_names=NAMES)


def saved(path, data, model):
    """A network with random weights, told to be over-confident by a temperature of 1.7."""
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, model, data=data, epoch=1, metrics={}, temperature=1.7)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, data):
    return saved(tmp_path_factory.mktemp("models") / "small_final.pth", data, small_model())


@pytest.fixture(scope="module")
def exports(checkpoint, data):
    """All three exports, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "INT8_TOLERANCE", 1.0)  # its accuracy is chance, so it may be lower
        return export.export_model(checkpoint, data)


def test_three_files_are_written_and_described_without_places_of_this_computer(exports, checkpoint):
    names = ["small_final.pt2", "small_final.onnx", "small_int8.onnx"]
    assert [Path(values["path"]).name for values in exports] == names
    assert sorted(p.name for p in checkpoint.parent.iterdir()) == sorted([checkpoint.name, *names])
    for values, name in zip(exports, names, strict=True):
        assert values["size_bytes"] == Path(values["path"]).stat().st_size
        assert name in values["sentence"] and str(checkpoint.parent) not in values["sentence"]
    assert json.loads(json.dumps(exports)) == exports


@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_fresh_process_agrees_with_pytorch_on_any_number(exports, checkpoint, tmp_path, number):
    images = np.random.default_rng(1).integers(0, 256, (5, 3, SIZE, SIZE), dtype=np.uint8)
    photographs, answers = tmp_path / "photographs.npy", tmp_path / "answers.npy"
    np.save(photographs, images)
    command = [sys.executable, "-c", APPLICATION, exports[number]["path"], photographs, answers]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    with torch.inference_mode():  # of which the tests of the predictor show that it is correct
        expected = Deployable(load_checkpoint(checkpoint))(torch.from_numpy(images)).numpy()
    assert np.abs(np.load(answers) - expected).max() < 1e-5


def test_both_files_say_what_the_model_is(exports, checkpoint):
    session = onnxruntime.InferenceSession(exports[1]["path"])
    metadata = session.get_modelmeta().custom_metadata_map
    extra = {"model.json": ""}
    torch.export.load(exports[0]["path"], extra_files=extra)
    assert metadata == json.loads(extra["model.json"])
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert json.loads(metadata["normalization"]) == load_checkpoint(checkpoint)["normalization"]
    assert (metadata["image_size"], metadata["temperature"]) == (str(SIZE), "1.7")


def test_onnx_is_one_file_and_no_path_of_this_computer_gets_into_any(exports):
    model = onnx.load(exports[1]["path"], load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    place = export.__file__.rpartition("flowers_utils")[0].encode()
    for values in exports:
        content = Path(values["path"]).read_bytes()
        assert place not in content and b"site-packages" not in content


def test_a_file_that_answers_differently_is_not_kept(checkpoint, data, tmp_path, monkeypatch):
    final = saved(tmp_path / "small_final.pth", data, small_model())
    final.with_suffix(".onnx").write_bytes(b"of an earlier run")
    wrong = np.full((1, len(NAMES)), np.nan, dtype=np.float32)
    monkeypatch.setattr(export, "_write_program", lambda part, *_: part.write_bytes(b"x"))
    monkeypatch.setattr(export, "_write_onnx", lambda part, *_: part.write_bytes(b"x"))
    monkeypatch.setattr(export, "open_export", lambda _: lambda images: wrong)
    for values in (found := export.export_model(final, data)):
        assert (
            values["path"] is None and "differ from PyTorch's by at most nan" in values["sentence"]
        )
    assert len(found) == 2  # no 8 bits of a file that is not of these weights
    assert final.with_suffix(".onnx").read_bytes() == b"of an earlier run"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small_final.onnx", "small_final.pth"]


class PassError(RuntimeError):
    """As onnxscript's: of a type that this project does not know."""


@pytest.mark.parametrize(
    "error", [PassError("An error occurred\n in 'unused'"), ModuleNotFoundError("no 'onnxscript'")]
)
def test_an_exporter_that_fails_is_explained_and_the_lesson_goes_on(
    checkpoint, data, tmp_path, monkeypatch, error
):
    final = saved(tmp_path / "small_final.pth", data, small_model())
    monkeypatch.setattr(export, "_write_program", lambda part, *_: part.write_bytes(b"x"))
    monkeypatch.setattr(export, "_compare", lambda *_: "")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch.onnx, "export", fail)
    program, failed = export.export_model(final, data)
    assert program["path"] is not None and failed["path"] is None
    for words in (type(error).__name__, f"onnxscript {version('onnxscript')}", "pip install"):
        assert words in failed["sentence"]
    assert "\n" not in failed["sentence"] and not final.with_suffix(".onnx").exists()


def test_int8_answers_with_probabilities(exports, data):
    probabilities = export.open_export(exports[2]["path"])(data.val.images)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    assert "Val accuracy" in exports[2]["sentence"]


@pytest.mark.parametrize(("after", "kept"), [(0.795, True), (0.794, False)])
def test_int8_is_kept_if_it_loses_half_a_point_at_most(data, tmp_path, monkeypatch, after, kept):
    scores = iter([0.80, after])  # of the float file, then of the 8-bit one
    monkeypatch.setattr(export, "_accuracy", lambda *_: next(scores))
    monkeypatch.setattr(export, "open_export", lambda path: None)
    monkeypatch.setattr(export, "_quantize", lambda source, target, _: target.write_bytes(b"8"))
    out = tmp_path / "int8.onnx"
    values = export._export("8 bits", out, partial(export._write_int8, tmp_path / "a.onnx", data))
    assert (values["path"] is not None) == out.exists() == kept
    assert ("not kept" in values["sentence"]) != kept


def test_all_files_can_be_called_on_one_image_to_be_timed(exports, checkpoint):
    files = [values["path"] for values in exports[:2]]
    calls = export.calls_on_one_image(checkpoint, [*files, None])
    assert list(calls) == ["PyTorch", "small_final.pt2", "small_final.onnx"]
    answers = [call() for call in calls.values()]
    assert all(np.abs(answer - answers[0]).max() < 1e-5 for answer in answers)


def card_of(checkpoint, path, *, source="folder", **changed):
    """The card's text as it is displayed; the file at `path` has headings."""
    content = load_checkpoint(checkpoint)
    content["data"] |= {"source": source, "title": "my *photographs*"}
    content |= {"architecture": "resnet18", "phase": {"epochs": 7}}
    estimate = {"value": 0.8125, "low": 0.7, "high": 0.9}
    recalls = {"$Rosa$ 5$": 0.25, "daisy": 1.0, "never seen": None, NAMES[1]: 0.75}
    rows = [{"name": name, "recall": recall, "support": 4} for name, recall in recalls.items()]
    metrics = {"count": 20, "ece": 0.031, "per_class": rows}
    metrics |= dict.fromkeys(("top1", "top5", "mean_per_class"), estimate) | changed
    phase = {"name": "Phase 2", "best_epoch": 6, "best_val_accuracy": 0.4375, "history": [{}] * 7}
    run = {
        "data": {"images": {"train": 31, "val": 17, "test": 20}},
        "phases": {"phase2": phase},
        **{"profile": "quick", "recipe": "lesson", "seed": 42, "device": "CPU (x86_64, test)"},
        "exports": [{"sentence": "ONNX: resnet18_final.onnx, small."}],
    }
    return write_model_card(path, checkpoint=content, metrics=metrics, run=run)


def test_the_model_card_says_what_the_values_say(checkpoint, tmp_path):
    card = card_of(checkpoint, tmp_path / "card.md")
    for said in (
        "| top-1 accuracy | 81.2% | 70.0% to 90.0% (Wilson) |",
        "| train | 31 |",
        "| Phase 2 | 7 | 6 | 43.8% |",
        "seed 42",
        "/ 1.700)",
        r"Found least often: \$Rosa\$ 5\$ (25% of 4), \|\<b\>\*daisy\*\</b\> (75% of 4), daisy",
        r"trained on my \*photographs\*",
        r"- ONNX: resnet18\_final.onnx, small.",
    ):
        assert said in card
    assert "batch size 32" in card and "epochs 7" in card and "total epochs" not in card


def test_headings_of_the_model_card_stay_out_of_the_notebooks_outline(checkpoint, tmp_path):
    shown, file = (
        card_of(checkpoint, tmp_path / "card.md"),
        (tmp_path / "card.md").read_text("utf-8"),
    )
    assert "\n## Metrics\n" in file and "\n**Metrics**\n" in shown
    assert not any(line.startswith("#") for line in shown.splitlines())
    assert file.startswith("# resnet18, ") and shown.startswith("**resnet18, ")


def test_the_model_card_warns_of_practice_flowers_and_names_licences(checkpoint, tmp_path):
    practice = card_of(checkpoint, tmp_path / "card.md", source="practice", top5=None)
    assert "top-5" not in practice  # it says nothing about five classes or fewer
    assert "mean nothing" in practice and "ImageNet" not in practice
    real = card_of(checkpoint, tmp_path / "card.md", source="flowers102")
    assert "Nilsback" in real and "`ResNet18_Weights.IMAGENET1K_V1`" in real
