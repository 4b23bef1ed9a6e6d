"""Is this machine ready, and how fast is a model? Without a stopwatch here."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

import transfer_learning_config as config
from flowers_utils.__main__ import main
from flowers_utils.machine import check_machine, preflight, speed
from flowers_utils.models import build_model

ROOT = Path(__file__).parent.parent
GB = 10**9


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """A machine with no data, no weights and no network, where an image takes a millisecond."""
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(config.PATHS, "models", str(tmp_path / "models"))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "data"))
    monkeypatch.setattr(preflight, "reachable", lambda *_, **__: False)
    monkeypatch.setattr(preflight.flowers102, "reachable", lambda _: False)
    monkeypatch.setattr(speed, "seconds_an_image", lambda *_, **__: 1e-3)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("torch>=999.1  # training", "torch>=999.1 is needed for training, here it is 2"),
        ("no-such-package>=1.0  # tests", "not installed; run: python -m pip"),
        *((line, "") for line in ("", "# a heading", "./folder", "-r other.txt")),
        ("--extra-index-url https://download.pytorch.org/whl/cpu  # no CUDA", ""),
    ],
)
def test_packages_are_compared_with_the_lines_of_the_requirements(line, told):
    said = preflight.check_packages(line)
    assert told in said if told else said == ""


def test_versions_that_cannot_export_are_told(monkeypatch):
    monkeypatch.setattr(preflight, "version", lambda n: "2.6.0" if n == "torch" else version(n))
    said = preflight.check_packages(preflight.REQUIREMENTS.read_text(encoding="utf-8"))
    assert "2.6.0" in said and "export" in said


# Files of control groups: name -> content.
VERSION_2 = {
    "proc/self/cgroup": "0::/user/job\n",
    "sys/fs/cgroup/user/memory.max": f"{GB}\n",
    "sys/fs/cgroup/user/memory.stat": f"anon {GB // 2}\nfile {GB // 4}\n",
    "sys/fs/cgroup/user/job/memory.max": "max\n",
}
VERSION_1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/1234\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/docker/1234/memory.limit_in_bytes": f"{GB}\n",
    "sys/fs/cgroup/memory/docker/1234/memory.stat": f"cache 7\ntotal_rss {GB // 2}\n",
}
# In a container the group's own name may lead nowhere: its files are at the top.
HIDDEN = {"proc/self/cgroup": "\n0::/elsewhere\n", "sys/fs/cgroup/memory.high": f"{GB // 2}\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [({}, ""), (VERSION_2, "500 MB"), (VERSION_1, "500 MB"), (HIDDEN, "500 MB")],
)
def test_free_memory_is_that_of_the_container(files, free, tmp_path, monkeypatch):
    here = psutil.virtual_memory()._replace(available=22 * GB)
    monkeypatch.setattr(preflight.psutil, "virtual_memory", lambda: here)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    told = f"[warn]  memory: {free} free, a complete run needs 3 GB" if free else ""
    assert preflight.check_memory(tmp_path) == told


def test_where_flowers_and_weights_come_from_is_decided_as_in_loading(empty_machine, monkeypatch):
    assert "[fail]" in preflight.check_flowers("flowers102")[1]
    assert "[warn]  PRACTICE flowers: Oxford" in preflight.check_flowers("auto")[1]
    monkeypatch.setattr(preflight.flowers102, "reachable", lambda _: True)
    assert "downloaded" in preflight.check_flowers("auto")[1]
    weights = preflight.check_weights()
    assert weights.startswith("[fail]") and "models/resnet18-f37072fd.pth" in weights
    assert str(empty_machine / "torch" / "hub" / "checkpoints") in weights


def test_the_notebook_is_told_the_data_the_time_and_what_is_wrong(empty_machine):
    lines = check_machine("practice", "quick").splitlines()
    assert any(line.startswith("[ok]    PRACTICE flowers") for line in lines)
    assert lines[-1].startswith("[ok]    lesson: profile 'quick', recipe 'lesson', PRACTICE")
    (empty_machine / "models").rmdir()
    (empty_machine / "models").write_text("a file where the folder should be")
    lines = check_machine("practice").splitlines()
    assert any(line.startswith("[fail]  disk: Nothing can be saved") for line in lines)
    assert lines[-1] == "[fail]  lesson: cannot run yet, see each [fail] above"


def test_shorter_profiles_take_less_time(empty_machine, cpu):
    knobs = {"on_practice": True, "recipe": "lesson"}
    full, quick, smoke = (speed.lesson_seconds(cpu, profile=p, **knobs) for p in config.PROFILES)
    assert smoke < quick < full


def test_the_time_for_an_image_comes_from_real_steps(cpu, monkeypatch):
    steps = []
    monkeypatch.setattr(speed, "train_one_epoch", lambda *given: steps.append(given[1][0][0].shape))
    assert 0 < speed.seconds_an_image(cpu, crop=64) < 1
    assert steps == 4 * [(32, 3, 64, 64)]  # the first one warms up


def test_the_command_says_whether_the_lesson_can_run(empty_machine, capsys, monkeypatch):
    assert main([]) == 0
    assert "[ok]    lesson: profile 'full'" in capsys.readouterr().out
    monkeypatch.setattr(preflight, "check_disk", lambda: "[fail]  disk: full")
    assert main([]) == 1


def test_a_missing_package_is_named_with_the_way_to_get_it():
    code = "import sys; sys.modules['torch'] = None; import flowers_utils"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr
    assert "another exception" not in said and "'torch' is missing" in said.splitlines()[-1]


def test_resnet18_has_the_published_amount_of_work():
    model = build_model("resnet18", num_classes=5, weights=None)
    # 1.814 billion multiply-adds with 1,000 classes (torchvision's model page); the head has five
    expected = 2 * (1.814e9 - 512 * 995)
    assert speed.count_flops(model, image_size=224) == pytest.approx(expected, rel=0.01)


def test_calls_are_timed_in_turn_after_a_first_one_that_warms_up():
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    assert all(0 < time < 1 for time in speed.latency_in_turn(calls, rounds=2).values())
    assert "".join(called) == 2 * "aaaabbbb"
