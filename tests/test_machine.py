"""Is this machine ready, how fast is a model, where does the time go: without a stopwatch here."""

import io
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import transfer_learning_config as config
from flowers_utils.__main__ import main
from flowers_utils.machine import speed
from flowers_utils.models import build_model, fingerprint, freeze_backbone

preflight = import_module("flowers_utils.machine.preflight")  # the folder's name is the function
ROOT = Path(__file__).parent.parent


@pytest.fixture
def no_stopwatch(monkeypatch):
    """Each measured call runs once, and is said to take a millisecond."""

    def measure(call, *_, **__):
        call()
        return SimpleNamespace(median=1e-3, times=[1e-3, 2e-3])

    monkeypatch.setattr(speed, "measure", measure)


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """A machine with no data, no weights and no network, where an image takes a millisecond."""
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(config.PATHS, "models", str(tmp_path / "models"))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "data"))
    monkeypatch.setattr(preflight, "reachable", lambda *_, **__: False)
    monkeypatch.setattr(preflight.flowers102, "flowers102_is_reachable", lambda **_: False)
    monkeypatch.setattr(preflight, "seconds_here", lambda *_: (1e-3, 1e-3))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("torch>=2.0  # training", "ok", "torch"),
        ("torch>=999.1  # training", "fail", "torch>=999.1 is needed for training, here it is 2"),
        ("no-such-package>=1.0  # tests", "warn", "not installed; run: python -m pip"),
    ],
)
def test_packages_are_compared_with_the_requirements(line, status, words):
    found, detail = preflight.packages(line)
    assert found == status and words in detail


@pytest.mark.parametrize(("free", "status"), [(10**8, "fail"), (10**9, "warn"), (10**10, "ok")])
def test_a_nearly_full_disk_is_told(free, status):
    assert preflight.enough(free, preflight.DISK, "free some")[0] == status


def test_data_that_can_be_downloaded_is_told_unless_it_cannot_be_saved(empty_machine, monkeypatch):
    monkeypatch.setattr(preflight.flowers102, "flowers102_is_reachable", lambda **_: True)
    assert "will be downloaded" in preflight.data_check("auto").detail
    (empty_machine / "data").rmdir()
    (empty_machine / "data").write_text("a file where the folder should be")
    for choice in ("flowers102", "auto"):  # loading would stop there, too
        assert preflight.data_check(choice).status == "fail"


def test_flowers102_out_of_reach_is_a_failure_only_if_it_was_asked_for(empty_machine):
    assert preflight.data_check("flowers102").status == "fail"
    check = preflight.data_check("auto")
    assert (check.status, check.what) == ("warn", preflight.PRACTICE)


def test_an_own_folder_is_listed_as_loading_does(tmp_path):
    (tmp_path / "empty").mkdir()
    assert preflight.data_check(str(tmp_path / "empty")).status == "fail"
    rng = np.random.default_rng(0)
    for name, count in (("rose", 3), ("tulip", 5)):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / name / f"{i}.jpg")
    check = preflight.data_check(str(tmp_path / "own"))
    assert (check.status, check.what) == ("ok", preflight.OWN)
    assert "8 photographs of 2 classes" in check.detail and "'rose' 3" in check.detail


def test_missing_weights_are_a_failure_that_names_the_file(empty_machine, monkeypatch):
    status, detail = preflight.weights(on_practice=False)
    assert status == "fail"
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in detail
    assert str(empty_machine / "torch" / "hub" / "checkpoints") in detail
    monkeypatch.setattr(config, "BACKBONE", "resnet50")
    assert preflight.weights(on_practice=True)[0] == "fail"


def test_without_a_home_folder_none_named_tilde_is_made(empty_machine, monkeypatch):
    monkeypatch.setattr(preflight, "weights_file", lambda _: Path("~/.cache/torch/x.pth"))
    status, detail = preflight.weights(on_practice=False)
    assert status == "fail" and "set TORCH_HOME" in detail


def test_the_notebook_is_told_the_data_the_time_and_what_is_wrong(empty_machine):
    lines = preflight.preflight("practice", "quick").splitlines()
    assert any(line.startswith("[ok]    PRACTICE flowers") for line in lines)
    assert lines[-1].startswith("[ok]    lesson: profile 'quick' runs on PRACTICE flowers")
    (empty_machine / "models").rmdir()
    (empty_machine / "models").write_text("a file where the folder should be")
    lines = preflight.preflight("practice").splitlines()
    assert any(line.startswith("[fail]  write access") for line in lines)
    assert lines[-1] == "[fail]  lesson: cannot run yet, see each [fail] above"


def test_shorter_profiles_and_a_kept_practice_backbone_take_less_time(empty_machine, cpu):
    def seconds(profile):
        return sum(preflight.lesson_seconds(cpu, on_practice=True, profile=profile))

    full = seconds("full")
    assert seconds("smoke") < seconds("quick") < full
    (empty_machine / "models").mkdir()
    (empty_machine / "models" / "practice_backbone.pth").touch()
    assert seconds("full") < full


def test_the_command_prints_a_line_for_each_check_on_any_console(empty_machine, monkeypatch):
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(empty_machine / "花"))
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", console)
    assert main([]) == 0
    lines = console.buffer.getvalue().decode("cp1252").splitlines()
    assert all(line.startswith(("[ok] ", "[warn] ")) for line in lines)
    assert "\\u82b1" in "".join(lines) and "lesson: profile 'full' runs on" in lines[-1]


def test_predict_compare_and_help_are_handed_on(monkeypatch, capsys):
    monkeypatch.setattr("flowers_utils.__main__.predict_command", len)
    assert main(["predict", "photo.jpg", "--top"]) == 2
    assert main(["compare", "old.json", "new.json"]) == 1
    assert capsys.readouterr().out.startswith("There is no file 'old.json'")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "predict photo.jpg" in capsys.readouterr().out


def test_a_missing_package_is_named_with_the_way_to_get_it():
    code = "import sys; sys.modules['requests'] = None; import flowers_utils"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "another exception" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "'requests' is missing" in last and "python -m pip install -r requirements" in last


def test_resnet18_has_the_published_amount_of_work():
    model = build_model("resnet18", num_classes=5, weights=None)
    # 1.814 billion multiply-adds with 1,000 classes (torchvision's model page); the head has five
    expected = 2 * (1.814e9 - 512 * 995)
    assert speed.count_flops(model, image_size=224) == pytest.approx(expected, rel=0.01)


def test_a_profile_is_plain_values_and_leaves_the_model_as_it_was(cpu, tmp_path, no_stopwatch):
    file = tmp_path / "model.pth"
    file.write_bytes(b"x" * 1234)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(2, 3, 8, 8))
    before = model[1].running_var.tolist()
    model[1].eval()
    profile = speed.profile_model(model, cpu, image_size=8, checkpoint=file)
    assert model.training and not model[1].training and model[1].running_var.tolist() == before
    values = vars(profile)
    assert (values["disk_bytes"], values["median_ms"]) == (1234, 1.0)
    assert all(isinstance(value, (str, int, float)) for value in values.values())
    assert "test, float32, 8 x 8" in profile.table()


def test_calls_are_timed_in_turn(cpu, no_stopwatch):
    called = []
    times = speed.latency_in_turn(
        {"a": lambda: called.append("a"), "b": lambda: called.append("b")}, cpu, rounds=2
    )
    assert called == ["a", "b", "a", "b"] and times == {"a": 1.0, "b": 1.0}


def test_both_loops_are_timed_in_the_same_parts_for_a_whole_epoch(tiny_data, cpu, no_stopwatch):
    model = build_model(num_classes=4, weights=None)
    freeze_backbone(model)
    before, random_state = fingerprint(model, backbone_only=False), torch.get_rng_state()
    seconds = speed.where_time_goes(model.eval(), tiny_data, cpu)
    assert list(seconds) == ["textbook", "this lesson"]
    for parts in seconds.values():
        assert list(parts) == ["decode", "augmentation", "forward", "backward"]
        assert parts["decode"] == pytest.approx(1e-3)  # 24 images, all in one batch
    assert fingerprint(model, backbone_only=False) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module.training for module in model.modules())
    assert not model.conv1.weight.requires_grad
