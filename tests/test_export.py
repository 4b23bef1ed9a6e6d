"""Exported files stand alone and agree with PyTorch; the model card says what the values say."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import NAME, register_small_net

from flowers_utils.data import FlowerData, Split
from flowers_utils.deploy import export, quantization
from flowers_utils.deploy.model_card import write_model_card
from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES, build_model
from flowers_utils.storage.checkpoints import load_checkpoint, save_checkpoint

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
SIZE, NAMES = 32, ("daisy", "rose", "tulip", "lily", "bluebell à fleurs")


@pytest.fixture(scope="module")
def photographs():
    return np.random.default_rng(0).integers(0, 256, (3, 3, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def data(photographs):
    """A data set whose three splits are the same photographs, larger in train."""
    labels = torch.tensor([0, 1, 2])
    larger = np.pad(photographs, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    splits = {name: Split(name, photographs, labels) for name in ("val", "test")}
    return FlowerData(
        source="folder",
        title="test $photographs$",
        class_names=NAMES,
        train=Split("train", larger, labels),
        **splits,
        resize_size=SIZE + 4,
        image_size=SIZE,
    )


def saved(path, data, name):
    """A network with random weights, told to be over-confident by a temperature of 1.7."""
    torch.manual_seed(0)
    model = build_model(name, num_classes=len(NAMES), weights=None)
    save_checkpoint(path, model, data=data, epoch=1, metrics={}, temperature=1.7)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, data):
    """Of the tests' small network, whose name is known while this module runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, NAME, None)  # so that it is taken out again
        register_small_net()
        yield saved(tmp_path_factory.mktemp("models") / "final.pth", data, NAME)


@pytest.fixture(scope="module")
def exports(checkpoint, photographs):
    """Both exports, made once: `{".pt2": values, ".onnx": values}`."""
    makers = {".pt2": export.export_program, ".onnx": export.export_onnx}
    return {
        suffix: make(checkpoint, checkpoint.with_suffix(suffix), photographs=photographs)
        for suffix, make in makers.items()
    }


def expected(checkpoint, images):
    """Probabilities by the definition, step by step."""
    content = load_checkpoint(checkpoint)
    model = build_model(NAME, num_classes=len(NAMES), weights=None)
    model.load_state_dict(content["state_dict"])
    mean, std = (torch.tensor(content["normalization"][k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        logits = model.eval()((torch.from_numpy(images) / 255 - mean) / std)
    return torch.softmax(logits / 1.7, dim=1).numpy()


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_fresh_process_agrees_with_pytorch(exports, suffix):
    values = exports[suffix]
    assert values["max_difference"] <= 1e-5 < export.TOLERANCE and values["photographs"] == 3
    assert f"{values['max_difference']:.1e}" in values["sentence"]
    assert json.loads(json.dumps(values)) == values


def test_both_take_any_number_of_raw_photographs(exports, checkpoint):
    images = np.random.default_rng(1).integers(0, 256, (5, 3, SIZE, SIZE), dtype=np.uint8)
    for values in exports.values():
        answers = quantization.open_export(values["path"])(images)
        assert np.abs(answers - expected(checkpoint, images)).max() < 1e-5


def test_both_files_say_what_the_model_is(exports, checkpoint):
    session = onnxruntime.InferenceSession(exports[".onnx"]["path"])
    metadata = session.get_modelmeta().custom_metadata_map
    extra = {"model.json": ""}
    torch.export.load(exports[".pt2"]["path"], extra_files=extra)
    assert metadata == json.loads(extra["model.json"])
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert json.loads(metadata["normalization"]) == load_checkpoint(checkpoint)["normalization"]
    assert (metadata["image_size"], metadata["temperature"]) == ("32", "1.7")


def test_onnx_is_one_file_and_no_path_of_this_computer_gets_into_either(exports):
    model = onnx.load(exports[".onnx"]["path"], load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    place = export.__file__.rpartition("flowers_utils")[0].encode()
    for values in exports.values():
        content = Path(values["path"]).read_bytes()
        assert place not in content and b"site-packages" not in content


WRONG = np.full((4, len(NAMES)), np.nan, dtype=np.float32)


def hang(command, timeout, **_):
    raise subprocess.TimeoutExpired(command, timeout)


@pytest.mark.parametrize(
    ("module", "name", "fault", "said"),
    [
        (export, "reopen", lambda *_: WRONG, "answers differently"),
        (export, "RELOAD", "no Python", r"could not open and run .* \(SyntaxError"),
        (subprocess, "run", hang, r"could not open and run .* timed out after 300 seconds"),
    ],
)
def test_a_file_that_fails_its_check_is_not_kept(
    checkpoint, photographs, tmp_path, monkeypatch, module, name, fault, said
):
    program = torch.fx.GraphModule({}, torch.fx.Graph())
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: program)
    monkeypatch.setattr(torch.export, "save", lambda program, path, **_: path.write_bytes(b"x"))
    monkeypatch.setattr(module, name, fault)
    out = tmp_path / "new" / "model.pt2"
    with pytest.raises(FlowersError, match=said):
        export.export_program(checkpoint, out, photographs=photographs)
    assert list(out.parent.iterdir()) == []


def test_int8_answers_and_leaves_nothing_behind(exports, data, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "TOLERANCE", 1.0)
    out = tmp_path / "int8.onnx"
    values = quantization.quantize_onnx(exports[".onnx"]["path"], out, data)
    probabilities = quantization.open_export(out)(photographs)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    assert values["path"] == out.as_posix() and list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_a_resnet18_of_8_bits_is_a_quarter_of_the_size(data, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "TOLERANCE", 1.0)
    checkpoint = saved(tmp_path / "resnet18.pth", data, "resnet18")
    out = tmp_path / "resnet18.onnx"
    whole = export.export_onnx(checkpoint, out, photographs=photographs)
    small = quantization.quantize_onnx(out, tmp_path / "int8.onnx", data)
    assert small["size_bytes"] < 0.3 * whole["size_bytes"]


@pytest.mark.parametrize(("after", "kept"), [(0.795, True), (0.794, False)])
def test_int8_is_kept_if_it_loses_half_a_point_at_most(
    exports, data, tmp_path, monkeypatch, after, kept
):
    scores = iter([after, 0.80])  # of the 8-bit file, then of the float one
    monkeypatch.setattr(quantization, "_accuracy", lambda *_: next(scores))
    monkeypatch.setattr(
        quantization, "_quantize", lambda source, target, _: target.write_bytes(b"8")
    )
    out = tmp_path / "int8.onnx"
    out.write_bytes(b"of an earlier run")
    values = quantization.quantize_onnx(exports[".onnx"]["path"], out, data)
    assert (values["path"] is not None) == out.exists() == kept
    assert ("not kept" in values["sentence"]) != kept


def test_all_files_can_be_called_on_one_image_to_be_timed(exports, checkpoint):
    files = [values["path"] for values in exports.values()]
    calls = quantization.calls_on_one_image(checkpoint, [*files, None])
    assert list(calls) == ["PyTorch", "final.pt2", "final.onnx"]
    answers = [call() for call in calls.values()]
    assert all(np.abs(answer - answers[0]).max() < 1e-5 for answer in answers)


def card_of(checkpoint, tmp_path, *, source="folder", **changed):
    content = load_checkpoint(checkpoint)
    content["data"]["source"], content["architecture"] = source, "resnet18"
    content["phase"] = {"epochs": 7, "one_cycle": source == "flowers102"}
    estimate = {"value": 0.8125, "low": 0.7, "high": 0.9}
    recalls = {"$Rosa$ 5$": 0.25, "daisy": 1.0, "never seen": None, "bluebell à fleurs": 0.75}
    rows = [{"name": name, "recall": recall, "support": 4} for name, recall in recalls.items()]
    metrics = {"count": 20, "ece": 0.031, "per_class": rows}
    metrics |= dict.fromkeys(("top1", "top5", "mean_per_class"), estimate) | changed
    rates = {"conv1": 0.0001, "layer1": 0.0001, "fc": 0.00125}
    slow = dict.fromkeys(rates, 0.00001)  # one cycle starts low, and a fit has no rates
    history = [{"learning_rates": each} for each in (slow, *[rates] * 5, {})]
    phase = {"name": "Phase 2", "best_epoch": 6, "best_val_accuracy": 0.4375, "seconds": 90.0}
    fitted = phase | {"name": "Phase 1", "history": history[-1:]}
    run = {
        "data": {"images": {"train": 31, "val": 17, "test": 20}},
        "phases": {"phase1": fitted, "phase2": phase | {"history": history}},
        "profile": "quick",
        "recipe": "lesson",
        "seed": 42,
        "device": "CPU (test)",
        "exports": [{"sentence": "ONNX, opset 18: small."}],
    }
    path = tmp_path / "card.md"
    text = write_model_card(path, checkpoint=content, metrics=metrics, run=run)
    assert path.read_text(encoding="utf-8") == text
    return text


def test_the_model_card_says_what_the_values_say(checkpoint, tmp_path):
    card = card_of(checkpoint, tmp_path)
    for said in (
        "| top-1 accuracy | 81.2% | 70.0% to 90.0% (Wilson) |",
        "| train | 31 |",
        "| Phase 1 | 1 | none: the head was fitted at once | 6 |",
        "| Phase 2 | 7 | 0.0001 for conv1, layer1; 0.00125 for fc | 6 | 43.8% | 1.5 |",
        "seed 42",
        "/ 1.700)",
        "Found least often: \\$Rosa\\$ 5\\$ (25% of 4), bluebell à fleurs (75% of 4), daisy",
        "trained on test \\$photographs\\$",
        "- ONNX, opset 18: small.",
    ):
        assert said in card
    assert "batch size 32" in card and "batch_size" not in card
    assert "epochs 7" in card and "step size 15" in card and "total epochs" not in card
    assert {line.split()[0] for line in card.splitlines() if line[0:1] == "#"} == {"###", "####"}


def test_the_model_card_warns_of_practice_flowers_and_names_licences(checkpoint, tmp_path):
    practice = card_of(checkpoint, tmp_path, source="practice", top5=None)
    assert "top-5" not in practice  # it says nothing about five classes or fewer
    assert "means nothing" in practice and "ImageNet" not in practice
    real = card_of(checkpoint, tmp_path, source="flowers102")
    assert "step size" not in real  # a phase of one cycle steps no rates
    assert "Nilsback" in real and "`ResNet18_Weights.IMAGENET1K_V1`" in real
