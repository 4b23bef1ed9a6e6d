"""Training: a batch, an epoch, a phase; what may move, what may not, and what is kept."""

import pytest
import torch
import torchvision
from small_training import CPU, NAME, SmallNet, facts, history, small_data, small_model, small_phase
from torch.nn import functional as F

import flowers_utils as fu
import transfer_learning_config as config
from flowers_utils.device import Device, choose_device, seed_everything
from flowers_utils.errors import FlowersError
from flowers_utils.models import build_model, fingerprint, make_optimizer, parameter_groups
from flowers_utils.storage.checkpoints import load_checkpoint, model_from_checkpoint
from flowers_utils.training import Phase, evaluate, train_one_epoch, train_phase
from flowers_utils.transforms import eval_batch, evaluation_batches, training_batches

pytestmark = pytest.mark.usefixtures("small_net")
PHASES = {1: {"number": 1, "backbone_lr": None}, 2: {"number": 2}}
RATES = {"backbone_lr": 0.01, "head_lr": 0.02}


def whole_print(model):
    return fingerprint(model, backbone_only=False)


def test_training_batches_are_each_photograph_once_cropped_and_normalised(tiny_data, cpu):
    seen = list(training_batches(tiny_data, cpu, seed_everything(0)))
    labels = torch.cat([labels for _, labels in seen])
    assert sorted(labels.tolist()) == sorted(tiny_data.train.labels.tolist())
    images = torch.cat([images for images, _ in seen])
    assert images.shape == (24, 3, 32, 32) and images.dtype is torch.float32
    assert images.min() < 0


def test_evaluation_batches_are_in_order_and_of_the_size_asked_for(tiny_data, cpu):
    for split, size in ((tiny_data.val, None), (tiny_data.train, 32)):
        seen = list(evaluation_batches(split, cpu, image_size=size))
        assert torch.equal(torch.cat([labels for _, labels in seen]), split.labels)
        expected = eval_batch(torch.from_numpy(split.images), 32)
        assert torch.allclose(torch.cat([images for images, _ in seen]), expected, atol=1e-6)


def test_means_are_weighted_by_images_not_by_batches(tiny_data, cpu, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 5)  # the last batch has one image
    model = small_model().eval()
    result = evaluate(model, evaluation_batches(tiny_data.val, cpu), cpu)
    with torch.no_grad():
        logits = model(eval_batch(torch.from_numpy(tiny_data.val.images), 32))
    right = (logits.argmax(1) == tiny_data.val.labels).float().mean().item()
    loss = F.cross_entropy(logits, tiny_data.val.labels).item()
    assert (result.loss, result.top1) == (pytest.approx(loss, rel=1e-4), pytest.approx(right))


def test_evaluation_changes_nothing(tiny_data, cpu):
    model = small_model().train()
    model.bn1.eval()
    before, chance = whole_print(model), torch.get_rng_state()
    evaluate(model, evaluation_batches(tiny_data.val, cpu), cpu)
    assert whole_print(model) == before and torch.equal(torch.get_rng_state(), chance)
    assert model.training and not model.bn1.training and torch.is_grad_enabled()


def test_an_epoch_is_the_textbook_loop(tiny_data, cpu):
    ours, theirs = small_model(), small_model()
    optimizer = make_optimizer(parameter_groups(ours, **RATES), cpu)
    got = train_one_epoch(
        ours, training_batches(tiny_data, cpu, seed_everything(3)), optimizer, cpu
    )
    groups = parameter_groups(theirs, **RATES)
    optimizer, total, right = torch.optim.AdamW(groups, weight_decay=0.01), 0.0, 0
    theirs.train()
    for images, labels in training_batches(tiny_data, cpu, seed_everything(3)):
        optimizer.zero_grad()
        logits = theirs(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        right += (logits.argmax(1) == labels).sum().item()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
    assert (got.loss, got.top1) == (pytest.approx(total / 24, rel=1e-5), right / 24)


def test_one_function_makes_every_optimizer_and_knows_where_fused_is_young(monkeypatch):
    asked, decay = {}, config.TRAINING_CONFIG["weight_decay"]
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **settings: asked.update(settings))
    for kind, fused in (("cpu", True), ("cuda", True), ("mps", False)):
        make_optimizer([], Device(torch.device(kind), "test"))
        assert asked == {"weight_decay": decay, "fused": fused}


# Who learns, and who does not


def test_phase_1_moves_the_head_and_nothing_else_and_not_the_given_model(tmp_path):
    model = small_model()
    before = whole_print(model)
    result = small_phase(tmp_path, model=model, **PHASES[1])
    assert fingerprint(result.model) == fingerprint(model)
    assert not torch.equal(result.model.classifier[1].weight, model.classifier[1].weight)
    assert result.model is not model and whole_print(model) == before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_proof_of_phase_1_fails_if_batchnorm_is_put_into_train_mode(tmp_path, monkeypatch):
    """The network whose fingerprint is shown is the one that trains, so the proof can fail."""
    monkeypatch.setattr("flowers_utils.models.train_mode", lambda model: model.train())
    model = small_model()
    result = small_phase(tmp_path, model=model, **PHASES[1])
    assert fingerprint(result.model) != fingerprint(model)


def test_phase_2_moves_every_parameter_even_of_a_frozen_model(tmp_path):
    start = small_model()
    fu.freeze_backbone(start)
    result = small_phase(tmp_path, model=start, epochs=1)
    for (name, old), new in zip(start.named_parameters(), result.model.parameters(), strict=True):
        assert not torch.equal(old, new), name


# A phase


def test_training_learns_and_the_seed_decides_what(tmp_path):
    runs = [small_phase(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    assert facts(runs[0]) == facts(runs[1])
    assert history(runs[0]) != history(runs[2])
    assert runs[0].history[-1]["train_loss"] < runs[0].history[0]["train_loss"] - 0.1
    assert runs[0].best_val_accuracy > 0.4


def test_each_phase_starts_at_its_own_rates_and_steps_them(tmp_path, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "step_size", 1)
    for number, groups in ((1, {"classifier": 0.02}), (2, {"stem": 0.01, "classifier": 0.02})):
        rows = small_phase(tmp_path, epochs=2, **PHASES[number]).history
        smaller = {name: pytest.approx(rate / 10) for name, rate in groups.items()}
        assert [row["learning_rates"] for row in rows] == [groups, smaller]


@pytest.mark.parametrize("number", PHASES)
def test_the_best_epoch_on_val_is_kept_in_memory_and_on_disk(tmp_path, number):
    result = small_phase(tmp_path, **PHASES[number])
    accuracies = [row["val_accuracy"] for row in result.history]
    assert result.best_val_accuracy == max(accuracies)
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1
    checkpoint = load_checkpoint(tmp_path / f"{NAME}_phase{number}_best.pth")
    assert checkpoint["epoch"] == result.best_epoch
    loaded = model_from_checkpoint(checkpoint)
    assert whole_print(loaded) == whole_print(result.model)
    again = evaluate(loaded, evaluation_batches(small_data().val, CPU), CPU)
    assert again.top1 == result.best_val_accuracy
    row = result.history[result.best_epoch - 1]
    assert again.loss == pytest.approx(row["val_loss"], rel=1e-4)
    assert result.to_dict()["history"] == result.history
    assert result.seconds == sum(row["seconds"] for row in result.history)


def test_the_whole_lesson_in_small(tiny_data, tmp_path):
    """Both phases, evaluation, saving, loading, predicting, on the device and precision at hand."""
    device = choose_device()
    start = build_model("resnet18", num_classes=4, weights=None, seed=0)
    phase1 = train_phase(start, tiny_data, device, Phase(1, 1, 0.001), folder=tmp_path)
    phase2 = train_phase(
        phase1.model, tiny_data, device, Phase(2, 1, 0.001, 0.001), folder=tmp_path
    )
    assert fingerprint(phase1.model) == fingerprint(start) != fingerprint(phase2.model)
    logits, labels = fu.predict_logits(phase2.model, tiny_data.test, device)
    metrics = fu.evaluation.compute_metrics(logits, labels, class_names=tiny_data.class_names)
    path = tmp_path / "final.pth"
    saved = {"val_accuracy": phase2.best_val_accuracy}
    fu.save_checkpoint(path, phase2.model, data=tiny_data, epoch=phase2.best_epoch, metrics=saved)
    predictor = fu.Predictor.from_checkpoint(path)
    photos = [image.transpose(1, 2, 0) for image in tiny_data.test.images]
    said = predictor.probabilities(photos).argmax(1)
    assert (said == labels).float().mean().item() == pytest.approx(metrics.top1.value, abs=0.13)
    plain = torchvision.models.resnet18(num_classes=4)
    plain.load_state_dict(torch.load(path, weights_only=True)["state_dict"])


# What cannot work is told before the first step


def misspell():
    config.TRAINING_CONFIG["batch_szie"] = 64
    return {}


CANNOT_WORK = {
    "head_lr .* it is nan": lambda: {"head_lr": float("nan")},
    "epochs .* it is 0": lambda: {"epochs": 0},
    "has no key 'batch_szie'": misspell,
    "102 outputs, but the data has 4": lambda: {
        "model": build_model(NAME, num_classes=102, weights=None)
    },
    "build_model": lambda: {"model": SmallNet(num_classes=4)},
}


@pytest.mark.parametrize("told", CANNOT_WORK)
def test_what_cannot_work_is_named_before_the_first_step(tmp_path, monkeypatch, told):
    monkeypatch.setattr(config, "TRAINING_CONFIG", dict(config.TRAINING_CONFIG))
    with pytest.raises(FlowersError, match=told):
        small_phase(tmp_path / "new", **CANNOT_WORK[told]())
    assert not list(tmp_path.iterdir())
