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
from flowers_utils.errors import FlowersError
from flowers_utils.machine import epoch_time, speed
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
    monkeypatch.setattr(epoch_time, "measure", measure)


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """A machine with no data, no weights and no network, where an image takes a millisecond."""
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(config.PATHS, "models", str(tmp_path / "models"))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "data"))
    monkeypatch.setattr(preflight, "reachable", lambda *_, **__: False)
    monkeypatch.setattr(preflight.flowers102, "flowers102_is_reachable", lambda **_: False)
    monkeypatch.setattr(epoch_time, "seconds_an_image", lambda *_, **__: (1e-3, 1e-3))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("torch>=2.0  # training", "ok", "torch"),
        ("torch>=999.1  # training", "fail", "too old, 999.1 or newer is needed (training); run: "),
        ("no-such-package>=1.0  # tests", "warn", "is not installed"),
    ],
)
def test_packages_are_compared_with_the_requirements(line, status, words):
    (check,) = preflight.package_checks(line)
    assert check.status == status and words in check.line()


@pytest.mark.parametrize(
    ("newer", "older"), [("2.10", "2.9"), ("2.6.0+cu118", "2.5.9"), ("8.0.0", "8")]
)
def test_versions_are_compared_as_numbers(newer, older):
    assert preflight._numbers(newer) >= preflight._numbers(older)


@pytest.mark.parametrize(
    ("running", "status"), [((3, 9, 1), "fail"), ((3, 10, 0), "ok"), ((3, 99, 0), "warn")]
)
def test_python_versions_that_are_too_old_or_untried_are_told(running, status):
    assert preflight.python_check(running).status == status


@pytest.mark.parametrize(("free", "status"), [(10**8, "fail"), (10**9, "warn"), (10**10, "ok")])
def test_a_nearly_full_disk_is_told(free, status):
    assert preflight.disk_check(free).status == status


def test_data_on_disk_is_found(mini_flowers102):
    check = preflight.data_check()
    assert check.status == "ok" and f"on disk in {mini_flowers102}" in check.detail


def test_data_that_can_be_downloaded_is_told(empty_machine, monkeypatch):
    monkeypatch.setattr(preflight.flowers102, "flowers102_is_reachable", lambda **_: True)
    assert "will be downloaded" in preflight.data_check().detail
    (empty_machine / "data").rmdir()
    (empty_machine / "data").write_text("a file where the folder should be")
    assert preflight.data_check().status == "fail"


def test_flowers102_out_of_reach_is_a_failure_only_if_it_was_asked_for(empty_machine):
    assert preflight.data_check("flowers102").status == "fail"
    check = preflight.data_check("auto")
    assert (check.status, check.what) == ("warn", preflight.PRACTICE)


def test_an_own_folder_is_listed_as_loading_does(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("rose", 3), ("tulip", 5)):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / name / f"{i}.jpg")
    check = preflight.data_check(str(tmp_path / "own"))
    assert (check.status, check.what) == ("ok", preflight.OWN)
    assert "8 photographs of 2 classes" in check.detail and "'rose' 3" in check.detail
    (tmp_path / "empty").mkdir()
    assert preflight.data_check(str(tmp_path / "empty")).status == "fail"


def test_practice_flowers_with_another_backbone_are_a_failure(monkeypatch):
    monkeypatch.setattr(config, "BACKBONE", "resnet50")
    assert preflight.weights_check(on_practice=True).status == "fail"


def test_photographs_without_weights_are_a_failure_that_names_the_file(empty_machine):
    check = preflight.weights_check(on_practice=False)
    assert check.status == "fail"
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in check.detail
    assert str(empty_machine / "torch" / "hub" / "checkpoints") in check.detail


def test_a_damaged_weights_file_is_told(empty_machine):
    folder = empty_machine / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    check = preflight.weights_check(on_practice=False)
    assert check.status == "fail" and "damaged" in check.detail


def test_without_a_home_folder_none_named_tilde_is_made(empty_machine, monkeypatch):
    monkeypatch.setattr(preflight, "weights_file", lambda _: Path("~/.cache/torch/x.pth"))
    check = preflight.weights_check(on_practice=False)
    assert check.status == "fail" and "set TORCH_HOME" in check.detail


def test_figures_that_would_not_be_seen_are_told(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    assert ("warn", "figures") in [(c.status, c.what) for c in preflight.notebook_checks()]
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert "figures" not in [check.what for check in preflight.notebook_checks()]


def test_a_misspelt_value_is_told_before_anything_is_measured(monkeypatch):
    with pytest.raises(FlowersError, match="PROFILE"):
        preflight.preflight(profile="fast")
    monkeypatch.setattr(config, "BACKBONE", "resnet19")
    with pytest.raises(FlowersError, match="resnet19"):
        preflight.preflight()


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
    full, quick, smoke = (
        sum(epoch_time.lesson_seconds(cpu, on_practice=True, profile=name))
        for name in ("full", "quick", "smoke")
    )
    assert smoke < quick < full
    (empty_machine / "models").mkdir()
    (empty_machine / "models" / "practice_backbone.pth").touch()
    assert sum(epoch_time.lesson_seconds(cpu, on_practice=True, profile="full")) < full


def test_the_command_prints_a_line_for_each_check_on_any_console(empty_machine, monkeypatch):
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(empty_machine / "花"))
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", console)
    assert main([]) == 0
    lines = console.buffer.getvalue().decode("cp1252").splitlines()
    assert all(line.startswith(("[ok] ", "[warn] ")) for line in lines)
    assert "\\u82b1" in "".join(lines) and "lesson: profile 'full' runs on" in lines[-1]


def test_help_is_given_without_checking_anything(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "predict photo.jpg" in capsys.readouterr().out


def test_predict_and_compare_are_handed_on(monkeypatch, capsys):
    monkeypatch.setattr("flowers_utils.__main__.predict_command", len)
    assert main(["predict", "photo.jpg", "--json"]) == 2
    assert main(["compare", "old.json", "new.json"]) == 1
    assert capsys.readouterr().out.startswith("There is no file 'old.json'")


def test_a_missing_package_is_named_with_the_way_to_get_it():
    code = "import sys; sys.modules['sklearn'] = None; import flowers_utils"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("ModuleNotFoundError")
    assert "sklearn" in last and "pip install -r requirements.txt" in last


class Small(nn.Module):
    """One convolution, one BatchNorm and one linear layer, whose work can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, images):
        return self.fc(self.bn(self.conv(images)).mean(dim=(2, 3)))


def test_flops_count_convolution_and_head_with_a_multiply_add_as_two():
    convolution, head = 2 * 8 * 8 * 3 * 3 * 3 * 4, 2 * 4 * 2
    assert speed.count_flops(Small(), image_size=8) == convolution + head


def test_resnet18_has_the_published_amount_of_work():
    model = build_model("resnet18", num_classes=5, weights=None)
    # 1.814 billion multiply-adds with 1,000 classes (torchvision's model page); the head has five
    expected = 2 * (1.814e9 - 512 * 995)
    assert speed.count_flops(model, image_size=224) == pytest.approx(expected, rel=0.01)


def test_the_stopwatch_keeps_the_number_of_threads(cpu):
    threads = []
    measured = speed.measure(lambda: threads.append(torch.get_num_threads()), cpu, seconds=0.001)
    assert set(threads) == {torch.get_num_threads()} and measured.median > 0


def test_a_profile_is_plain_values_and_leaves_the_model_as_it_was(cpu, tmp_path, no_stopwatch):
    file = tmp_path / "model.pth"
    file.write_bytes(b"x" * 1234)
    model = Small().train()
    model.bn.eval()
    before = fingerprint_of(model)
    profile = speed.profile_model(model, cpu, image_size=8, checkpoint=file)
    assert fingerprint_of(model) == before and model.training and not model.bn.training
    values = profile.as_dict()
    assert (values["disk_bytes"], values["median_ms"]) == (1234, 1.0)
    assert values["parameters"] == 3 * 4 * 9 + 4 + 4 + 4 * 2 + 2
    assert values["peak_memory_of"] == "process" and values["peak_memory_bytes"] > 1e8
    assert all(isinstance(value, (str, int, float)) for value in values.values())
    assert "test, float32, 8 x 8" in profile.table()


def fingerprint_of(model):
    return [value.tolist() for value in model.state_dict().values()]


def test_both_loops_are_timed_in_the_same_parts_for_a_whole_epoch(tiny_data, cpu, no_stopwatch):
    model = build_model(num_classes=4, weights=None)
    freeze_backbone(model)
    before, random_state = fingerprint(model, backbone_only=False), torch.get_rng_state()
    seconds = epoch_time.where_time_goes(model.eval(), tiny_data, cpu)
    assert list(seconds) == ["textbook", "this lesson"]
    for parts in seconds.values():
        assert tuple(parts) == epoch_time.PARTS
        assert parts["decode"] == pytest.approx(1e-3)  # 24 images, all in one batch
    assert fingerprint(model, backbone_only=False) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module.training for module in model.modules())
    assert not model.conv1.weight.requires_grad


def test_a_jpeg_in_memory_shows_the_same_photograph(tiny_data):
    image = tiny_data.train.images[0]
    photo = epoch_time.open_jpeg(epoch_time.as_jpeg(image, 72))
    assert photo.size == (72, 72) and photo.mode == "RGB"
    assert np.asarray(photo).mean(axis=(0, 1)) == pytest.approx(image.mean(axis=(1, 2)), abs=5)
