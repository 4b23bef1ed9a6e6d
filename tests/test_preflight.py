"""The preflight check tells the truth about a machine, good or bad."""

import pytest

import transfer_learning_config as config
from flowers_utils.__main__ import main
from flowers_utils.errors import FlowersError
from flowers_utils.machine import duration, preflight
from flowers_utils.machine.preflight import Check


def unreachable(*_, **__):
    return False


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """A machine with no data, no weights and no network, that computes an image in a millisecond."""
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(config.PATHS, "models", str(tmp_path / "models"))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "data"))
    monkeypatch.setattr(preflight, "reachable", unreachable)
    monkeypatch.setattr(preflight.flowers102, "flowers102_is_reachable", unreachable)
    monkeypatch.setattr(duration, "seconds_per_image", lambda *_, **__: (1e-3, 1e-3))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("torch>=2.0  # training", "ok", "torch"),
        ("torch>=999.1  # training", "fail", "too old, 999.1 or newer is needed (training)"),
        ("no-such-package>=1.0  # tests", "warn", "is not installed"),
        ("pytest>=999  # tests", "warn", "too old"),
    ],
)
def test_packages_are_compared_with_the_requirements(line, status, words):
    (check,) = preflight.package_checks(line)
    assert check.status == status
    assert words in check.line()
    assert ("pip install -r requirements.txt" in check.detail) == (status != "ok")


@pytest.mark.parametrize(
    ("newer", "older"),
    [("2.10", "2.9"), ("2.6.0+cu118", "2.5.9"), ("8", "7.9"), ("3.0rc1", "2.99")],
)
def test_versions_are_compared_as_numbers(newer, older):
    assert preflight._release(newer) > preflight._release(older)


def test_zeros_at_the_end_of_a_version_do_not_matter():
    assert preflight._release("8") == preflight._release("8.0.0")


@pytest.mark.parametrize(
    ("running", "status"), [((3, 9, 1), "fail"), ((3, 10, 0), "ok"), ((3, 99, 0), "warn")]
)
def test_python_versions_that_are_too_old_or_untried_are_told(running, status):
    assert preflight.python_check(running).status == status


@pytest.mark.parametrize(("free", "status"), [(10**8, "fail"), (10**9, "warn"), (10**10, "ok")])
def test_a_nearly_full_disk_is_told(free, status):
    assert preflight.disk_check(free).status == status


def test_data_on_disk_is_found(mini_flowers102):
    check, photographs = preflight.data_check()
    assert (check.status, photographs) == ("ok", True)
    assert f"on disk in {mini_flowers102}" in check.detail


def test_data_that_can_be_downloaded_is_told(empty_machine, monkeypatch):
    monkeypatch.setattr(preflight.flowers102, "flowers102_is_reachable", lambda **_: True)
    check, photographs = preflight.data_check()
    assert (check.status, photographs) == ("ok", True)
    assert "will be downloaded" in check.detail


def test_a_download_that_could_not_be_saved_is_a_failure(empty_machine, monkeypatch):
    (empty_machine / "data").write_text("a file where the folder should be")
    monkeypatch.setattr(preflight.flowers102, "flowers102_is_reachable", lambda **_: True)
    check, _ = preflight.data_check()
    assert check.status == "fail"
    assert "FLOWERS_DATA_DIR" in check.detail


def test_no_data_and_no_network_means_practice_flowers(empty_machine):
    check, photographs = preflight.data_check()
    assert (check.status, photographs) == ("warn", False)
    assert (check.what, "nor reachable" in check.detail) == (preflight.PRACTICE, True)


def test_flowers102_that_was_asked_for_and_cannot_be_had_is_a_failure(empty_machine):
    assert preflight.data_check("flowers102")[0].status == "fail"


def test_practice_flowers_that_were_asked_for_need_nothing(mini_flowers102):
    check, photographs = preflight.data_check("practice")
    assert (check.status, check.what, photographs) == ("ok", preflight.PRACTICE, False)


@pytest.mark.parametrize(("name", "status"), [("own", "ok"), ("elsewhere", "fail")])
def test_a_folder_of_ones_own_is_looked_for(tmp_path, name, status):
    (tmp_path / "own").mkdir()
    check, photographs = preflight.data_check(str(tmp_path / name))
    assert (check.status, check.what, photographs) == (status, preflight.OWN, True)


def test_practice_flowers_with_another_backbone_are_a_failure(monkeypatch):
    monkeypatch.setattr(config, "BACKBONE", "resnet50")
    assert preflight.weights_check(photographs=False).status == "fail"


def test_a_shorter_profile_is_reckoned_shorter(empty_machine, cpu):
    full, quick, smoke = (
        sum(duration.lesson_seconds(cpu, photographs=True, profile=name))
        for name in ("full", "quick", "smoke")
    )
    assert smoke < quick < full


def test_a_misspelt_value_is_told_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(config, "BACKBONE", "resnet19")
    with pytest.raises(FlowersError, match="resnet19"):
        preflight.checks()
    monkeypatch.undo()
    with pytest.raises(FlowersError, match="PROFILE"):
        preflight.checks(profile="fast")


def test_photographs_without_weights_are_a_failure_that_names_the_file(empty_machine):
    check = preflight.weights_check(photographs=True)
    assert check.status == "fail"
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in check.detail
    assert str(empty_machine / "torch" / "hub" / "checkpoints") in check.detail


def test_a_damaged_weights_file_is_told(empty_machine, monkeypatch):
    monkeypatch.setattr(preflight, "reachable", lambda *_, **__: True)
    folder = empty_machine / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    check = preflight.weights_check(photographs=True)
    assert check.status == "ok"
    assert "damaged on disk, will be downloaded" in check.detail


def test_a_folder_without_write_access_is_a_failure(empty_machine):
    (empty_machine / "models").write_text("a file where the folder should be")
    check = preflight.write_check()
    assert check.status == "fail"
    assert "models" in check.detail


def test_the_last_line_says_what_the_lesson_runs_on_and_how_long(empty_machine):
    *_, last = preflight.checks()
    assert last.status == "ok"
    assert "PRACTICE flowers" in last.detail
    assert "4 min to the finished classifier, then 2 min for the control" in last.detail


def test_pretraining_is_counted_until_it_is_done(empty_machine, cpu):
    before, _ = duration.lesson_seconds(cpu, photographs=False)
    (empty_machine / "models").mkdir()
    (empty_machine / "models" / "practice_backbone.pth").touch()
    after, _ = duration.lesson_seconds(cpu, photographs=False)
    assert before - after == pytest.approx(duration.practice.PRETRAINING["images"] * 1e-3)


def test_a_few_real_steps_are_measured(cpu):
    training, forward = duration.seconds_per_image(cpu, resize=36, crop=32)
    assert 0 < forward < training


def test_one_failure_fails_the_whole_and_is_kept_in_the_short_report():
    good, odd, bad = (Check(status, "x", status) for status in ("ok", "warn", "fail"))
    assert preflight.exit_status([good, odd]) == 0
    assert preflight.exit_status([good, bad, good]) == 1
    lines = preflight.short_report([good, odd, bad, good]).splitlines()
    assert [line.split()[0] for line in lines] == ["[warn]", "[fail]", "[ok]"]


def test_the_command_prints_a_line_for_each_check_and_exits_with_0(empty_machine, capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("[ok] ", "[warn] ")) for line in lines)
    assert "lesson: profile 'full' runs on" in lines[-1]


def test_the_command_exits_with_1_where_the_lesson_cannot_run(empty_machine, capsys):
    (empty_machine / "models").write_text("a file where the folder should be")
    assert main([]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("[fail]")


def test_help_is_given_without_checking_anything(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "predict photo.jpg" in capsys.readouterr().out


def test_predict_is_handed_on(monkeypatch):
    monkeypatch.setattr("flowers_utils.deploy.export.predict_command", lambda argv: len(argv))
    assert main(["predict", "photo.jpg", "--json"]) == 2
