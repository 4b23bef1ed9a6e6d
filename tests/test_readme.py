"""README.md: what it promises is there, and its numbers are those of the results file."""

import json
import re
import shutil
import subprocess
from importlib.util import find_spec

import pytest
import torch
from PIL import Image

from flowers_utils import exercises
from flowers_utils.__main__ import main
from flowers_utils.datasets.listing import SPLIT_NAME
from flowers_utils.datasets.weights import weights_file
from flowers_utils.evaluation import compute_metrics
from flowers_utils.insight import metrics_as_dict
from flowers_utils.storage.results import PhaseResult, describe_run, save_results
from tests.benchmarks.readme import MAIN, PICTURE, PLACES, RESULTS, ROOT, trimmed, up_to_date
from tests.benchmarks.readme_picture import choose_flowers
from tests.benchmarks.seeds import spread

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
NAMES = re.findall(r"`([\w.-]*[/\w-]+(?:/|\.\w+))`", PROSE)  # `a/`, `a/b.py`, `a.json`
# What only a run, a download or a reader makes.
MADE = {
    *("models/", "models/lesson_run.ipynb", "models/results.json", "results.json"),
    *("resnet18_final.pth", "102flowers.tgz", "imagelabels.mat", "setid.mat"),
    *("data/flowers-102/", "flowers-102/", "train/", "val/", "test/"),
    f"hub/checkpoints/{weights_file('resnet18').name}",
}


@pytest.mark.parametrize("path", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_numbers_are_those_of_the_results_file(path):
    runs = json.loads(RESULTS.read_text(encoding="utf-8"))
    again = "run `python -m tests.benchmarks.readme`"
    assert path.read_text(encoding="utf-8") == up_to_date(path, runs), again


def test_no_percentage_is_typed_by_hand():
    outside = re.sub(r"<!-- results -->.*<!-- end of results -->", "", TEXT, flags=re.DOTALL)
    assert not re.findall(r"\d ?%", outside)


def test_the_runs_of_the_results_file_name_data_device_and_versions():
    runs = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert MAIN in runs
    for run in runs.values():
        assert {"torch", "torchvision", "python"} <= set(run["versions"])
        assert run["data"]["title"] and run["device"]


def test_readme_is_short():
    lines = TEXT.splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 120


def test_the_picture_is_there_and_small():
    assert f"]({PICTURE.relative_to(ROOT).as_posix()})" in TEXT
    assert PICTURE.stat().st_size < 300_000
    with Image.open(PICTURE) as image:
        assert 1100 <= image.width <= 1300


def test_every_link_and_every_file_named_is_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links and NAMES
    missing = [n for n in {*links, *NAMES} - MADE if not (ROOT / n).exists()]
    assert not missing


def test_the_commands_come_in_order_and_set_everything_up_themselves():
    set_up = "python3 -m venv .venv && .venv/bin/python -m pip install -r requirements.txt && "
    commands = [" ".join(block.replace("\\\n", "").split()) for block in BLOCKS[:3]]
    assert commands == [
        f"{set_up}.venv/bin/python -m jupyter lab resnet18_training.ipynb",
        f"{set_up}.venv/bin/python -m papermill resnet18_training.ipynb "
        "models/lesson_run.ipynb --log-output --no-progress-bar",
        f"{set_up}.venv/bin/python -m pytest",
    ]


def test_modules_named_in_commands_are_there():
    modules = set(re.findall(r"python3? -m ([\w.]+)", TEXT))
    assert {"flowers_utils", "papermill", "tests.benchmarks.seeds"} <= modules
    assert not [name for name in modules if find_spec(name) is None]
    for command in set(re.findall(r"-m flowers_utils (\w+)", TEXT)):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0, command


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize("block", BLOCKS)
def test_commands_are_valid_shell(block):
    subprocess.run(["bash", "-n", "-c", block], check=True)


def test_names_from_the_code_are_right():
    assert f"hub/checkpoints/{weights_file('resnet18').name}" in NAMES
    for name in ("training", "valid", "testing"):
        assert f"`{name}`" in TEXT and SPLIT_NAME.fullmatch(name)
    for heading in ("Download errors", "**Colab:**"):  # the notebook and messages point there
        assert heading in TEXT


def test_graders_find_the_verdicts_of_the_checks():
    pattern = re.search(r'grep -oE "(.*)" models', TEXT)[1]
    found = [re.search(pattern, exercises.check_steps(answer))[1] for answer in (32, 31, ...)]
    assert found == ["right", "not yet", "not answered yet"]


# What makes the numbers and the picture.


def finished_run(folder, data, device, top1=0.5):
    """The `results.json` that the notebook would leave in `folder`; its content."""
    row = {"phase": 1, "epoch": 1, "train_accuracy": 0.4, "val_accuracy": top1, "seconds": 61.0}
    phase = PhaseResult("Phase 1", 1, torch.nn.Identity(), folder / "none.pth", [row])
    metrics = compute_metrics(
        torch.eye(4)[data.test.labels], data.test.labels, class_names=data.class_names
    )
    run = describe_run(data, device, [phase.to_dict()], {"profile": "full", "seed": 0})
    run |= {"test": metrics_as_dict(metrics)}
    save_results(folder / "results.json", run)
    return run


def test_a_finished_run_is_trimmed_to_what_readme_needs(tmp_path, tiny_data, cpu):
    finished_run(tmp_path, tiny_data, cpu)
    run = trimmed(tmp_path, device="two cores")
    assert run["device"] == "two cores" and run["test"]["top1"]["value"] == 1
    assert run["phases"]["phase1"]["epochs"] == 1 and "config" not in run


def test_seeds_give_mean_and_spread(tmp_path, tiny_data, cpu):
    runs = [finished_run(tmp_path, tiny_data, cpu, top1) for top1 in (0.5, 0.7)]
    assert "| Phase 1, val | 60.0% | 14.1 points | 50.0% | 70.0% |" in spread(runs)


def test_the_picture_shows_three_right_answers_and_a_mistake():
    labels = torch.arange(8).repeat(4)
    answers = (labels + (torch.arange(32) % 4 == 3).long()) % 8  # every fourth is wrong
    probabilities = 0.6 * torch.eye(8)[answers] + 0.3 * torch.eye(8)[labels] + 0.01
    chosen = choose_flowers(labels, probabilities)
    assert (answers[chosen] == labels[chosen]).tolist() == [True, True, True, False]
