"""Exported files: they stand alone and agree with PyTorch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flowers_utils.data import FlowerData, Split
from flowers_utils.deploy import export, quantization
from flowers_utils.deploy.fresh_process import OPEN_ONNX, reopen
from flowers_utils.errors import FlowersError
from flowers_utils.models import build_model
from flowers_utils.storage.checkpoints import load_checkpoint, save_checkpoint

SIZE, NAMES = 32, ("daisy", "rose", "tulip", "lily", "bluebell à fleurs")


@pytest.fixture(scope="module")
def photographs():
    return np.random.default_rng(0).integers(0, 256, (3, 3, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, photographs):
    """A network with random weights, told to be over-confident by a temperature of 1.7."""
    torch.manual_seed(0)
    split = Split("val", photographs, torch.zeros(3, dtype=torch.int64))
    data = FlowerData("folder", "test photographs", NAMES, split, split, split, SIZE, SIZE)
    path = tmp_path_factory.mktemp("models") / "resnet18_final.pth"
    model = build_model("resnet18", num_classes=len(NAMES), weights=None)
    save_checkpoint(path, model, data=data, epoch=1, metrics={}, temperature=1.7)
    return path


@pytest.fixture(scope="module")
def reports(checkpoint, photographs):
    """Both exports, made once: `{".pt2": report, ".onnx": report}`."""
    makers = {".pt2": export.export_program, ".onnx": export.export_onnx}
    return {
        suffix: make(checkpoint, checkpoint.with_suffix(suffix), photographs=photographs)
        for suffix, make in makers.items()
    }


def expected(checkpoint, images):
    """Probabilities by the definition, step by step."""
    content = load_checkpoint(checkpoint)
    model = build_model("resnet18", num_classes=len(NAMES), weights=None)
    model.load_state_dict(content["state_dict"])
    mean, std = (torch.tensor(content["normalization"][k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        logits = model.eval()((torch.from_numpy(images) / 255 - mean) / std)
    return torch.softmax(logits / 1.7, dim=1).numpy()


def onnx_session(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_fresh_process_agrees_with_pytorch(reports, suffix):
    report = reports[suffix]
    assert report.max_difference <= 1e-5 < report.tolerance
    assert report.photographs == 3 and report.latency_ms > 0 and report.torch_latency_ms > 0
    assert f"{report.max_difference:.1e}" in report.sentence()


@pytest.mark.parametrize("count", [1, 5])
def test_onnx_takes_any_number_of_raw_photographs(reports, checkpoint, count):
    images = np.random.default_rng(1).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)
    answers = onnx_session(reports[".onnx"].path).run(["probabilities"], {"images": images})[0]
    assert np.abs(answers - expected(checkpoint, images)).max() < 1e-5


def test_the_program_takes_another_number_of_photographs(reports, checkpoint):
    images = np.random.default_rng(2).integers(0, 256, (5, 3, SIZE, SIZE), dtype=np.uint8)
    with torch.no_grad():
        answers = torch.export.load(reports[".pt2"].path).module()(torch.from_numpy(images))
    assert np.abs(answers.numpy() - expected(checkpoint, images)).max() < 1e-5


def test_both_files_say_what_the_model_is(reports, checkpoint):
    metadata = onnx_session(reports[".onnx"].path).get_modelmeta().custom_metadata_map
    extra = {"model.json": ""}
    torch.export.load(reports[".pt2"].path, extra_files=extra)
    assert metadata == json.loads(extra["model.json"])
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert json.loads(metadata["normalization"]) == load_checkpoint(checkpoint)["normalization"]
    assert (metadata["image_size"], metadata["temperature"]) == ("32", "1.7")


def test_both_hold_plain_convolutions_with_all_their_weights(reports):
    onnx = pytest.importorskip("onnx")
    nodes = onnx.load(reports[".onnx"].path).graph.node
    assert "Conv" in {node.op_type for node in nodes}
    assert "Slice" not in {node.op_type for node in nodes}
    program = torch.export.load(reports[".pt2"].path)
    assert not any("slice" in str(node.target) for node in program.graph.nodes)


def test_onnx_is_one_file_of_the_stated_opset(reports):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(reports[".onnx"].path, load_external_data=False)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", export.OPSET)]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert str(export.OPSET) in reports[".onnx"].kind


def test_no_path_of_this_computer_gets_into_the_files(reports):
    place = export.__file__.rpartition("flowers_utils")[0].encode()
    for suffix in reports:
        content = Path(reports[suffix].path).read_bytes()
        assert place not in content and b"site-packages" not in content


def test_a_file_that_answers_differently_takes_no_place(
    checkpoint, photographs, tmp_path, monkeypatch
):
    wrong = np.full((3, len(NAMES)), 0.2, dtype=np.float32)
    monkeypatch.setattr(export, "reopen", lambda *_: (wrong, wrong[:1], np.array([0.1])))
    monkeypatch.setattr(
        torch.export, "export", lambda *_, **__: torch.fx.GraphModule({}, torch.fx.Graph())
    )
    monkeypatch.setattr(torch.export, "save", lambda program, path, **_: path.write_bytes(b"x"))
    with pytest.raises(FlowersError, match="answers differently"):
        export.export_program(checkpoint, tmp_path / "model.pt2", photographs=photographs)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_opened_is_said_so(photographs, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(FlowersError, match="fresh Python process could not run"):
        reopen(tmp_path / "model.onnx", photographs, OPEN_ONNX)


@pytest.mark.parametrize("shape", [(1, 3, SIZE, SIZE), (3, 3, 48, 48), (3, SIZE, SIZE, 3)])
def test_photographs_that_do_not_fit_are_refused(checkpoint, tmp_path, shape):
    with pytest.raises(FlowersError, match="at least two uint8 photographs"):
        export.export_onnx(
            checkpoint, tmp_path / "model.onnx", photographs=np.zeros(shape, np.uint8)
        )


def card_of(checkpoint, tmp_path, *, top1=0.8125, source="folder"):
    from flowers_utils.deploy.model_card import write_model_card
    from flowers_utils.evaluation import evaluate

    logits = torch.eye(5).repeat(4, 1)
    labels = torch.arange(5).repeat(4)
    labels[:3] = 4  # daisy, rose and tulip are named once where a bluebell is
    content = load_checkpoint(checkpoint)
    content["data"]["source"] = source
    evaluation = evaluate(logits, labels, class_names=NAMES).to_dict()
    evaluation["top1"]["value"] = top1
    rates = {"fc": 0.00125}
    phase = {"history": [{"learning_rates": rates}] * 7, "best_epoch": 6,
             "best_val_accuracy": 0.4375, "seconds": 90.0}  # fmt: skip
    run = {"data": {"images": {"train": 31, "val": 17, "test": 20}}, "phases": {"phase1": phase},
           "profile": "quick", "seed": 42, "device": "CPU (test)"}  # fmt: skip
    path = tmp_path / "resnet18_final.md"
    text = write_model_card(path, checkpoint=content, evaluation=evaluation, run=run)
    assert path.read_text(encoding="utf-8") == text
    return text


def test_the_model_card_says_what_the_values_say(checkpoint, tmp_path):
    card = card_of(checkpoint, tmp_path)
    for said in ("81.2%", "(Wilson)", "| train | 31 |", "43.8%", "fc 0.00125", "1.5", "seed 42",
                 "1.700", "test photographs", "bluebell à fleurs (57% of 7)"):  # fmt: skip
        assert said in card
    assert "12.5%" in card_of(checkpoint, tmp_path, top1=0.125)


def test_the_model_card_warns_of_practice_flowers_and_names_licences(checkpoint, tmp_path):
    practice = card_of(checkpoint, tmp_path, source="practice")
    assert "means nothing" in practice and "ImageNet" not in practice
    real = card_of(checkpoint, tmp_path, source="flowers102")
    assert "Nilsback" in real and "ResNet18_Weights.IMAGENET1K_V1" in real


def flowers_of(photographs):
    """A data set whose three splits are the same photographs, larger in train."""
    labels, side = torch.tensor([0, 1, 2]), photographs.shape[-1]
    larger = np.pad(photographs, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    splits = {name: Split(name, photographs, labels) for name in ("val", "test")}
    return FlowerData("folder", "test", ("a", "b", "c"), Split("train", larger, labels), **splits,
                      resize_size=side + 4, image_size=side)  # fmt: skip


def test_int8_is_a_quarter_of_the_size_and_still_answers(reports, photographs, tmp_path):
    out = tmp_path / "int8.onnx"
    report = quantization.quantize_onnx(
        reports[".onnx"].path, out, flowers_of(photographs), tolerance=1.0
    )
    assert report.path == out.as_posix() and report.size_bytes < 0.3 * report.float_size_bytes
    probabilities = onnx_session(out).run(None, {"images": photographs})[0]
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)


def test_int8_that_loses_accuracy_is_not_kept_and_an_older_one_goes(
    reports, photographs, tmp_path, monkeypatch
):
    scores = iter([0.80, 0.81])  # the 8-bit file, then the float one
    monkeypatch.setattr(
        quantization, "_measure", lambda *_: {"accuracy": next(scores), "latency_ms": 1.0}
    )
    monkeypatch.setattr(quantization, "_quantize", lambda source, target, _: target.touch())
    out = tmp_path / "int8.onnx"
    out.write_bytes(b"of an earlier run")
    report = quantization.quantize_onnx(reports[".onnx"].path, out, flowers_of(photographs))
    assert report.path is None and not out.exists()
    assert "not kept" in report.sentence()
