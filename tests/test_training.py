"""Training: a batch, an epoch, a phase; what may move, what may not, and what is kept."""

from dataclasses import replace

import pytest
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_training import CPU, backbone_print, facts, history, small_data, small_model, small_phase
from torch.nn import functional as F

import flowers_utils as fu
import transfer_learning_config as config
from flowers_utils import models, training
from flowers_utils.device import choose_device, seed_everything
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import features_of
from flowers_utils.fitted_head import FOLDS, HEAD_C, fit_final_head, fit_head, mirrored_features
from flowers_utils.models import build_model, fingerprint, parameter_groups
from flowers_utils.phases import Phase
from flowers_utils.storage.checkpoints import load_checkpoint, model_from_checkpoint
from flowers_utils.training import evaluate, make_optimizer, train_one_epoch, train_phase
from flowers_utils.transforms import eval_batch, evaluation_batches, training_batches

PHASES = {1: {"number": 1, "backbone_lr": None}, 2: {"number": 2}}
RATES = {"backbone_lr": 0.01, "head_lr": 0.02}


def test_evaluation_weighs_by_images_not_by_batches_and_changes_nothing(cpu, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 5)  # the last batch has one image
    model, val = small_model().train(), small_data().val
    before = fingerprint(model)
    result = evaluate(model, evaluation_batches(val, cpu), cpu)
    logits, labels = fu.predict_logits(model, val, cpu)
    assert fingerprint(model) == before
    assert torch.equal(result.correct, logits.argmax(1) == labels)
    assert result.top1 == result.correct.float().mean().item()
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


def test_an_epoch_is_the_textbook_loop(tiny_data, cpu, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 7)
    ours, theirs = small_model(), small_model()
    optimizer = make_optimizer(parameter_groups(ours, **RATES), cpu)
    got = train_one_epoch(
        ours, training_batches(tiny_data, cpu, seed_everything(3)), optimizer, cpu
    )
    optimizer = torch.optim.AdamW(parameter_groups(theirs, **RATES), weight_decay=0.01)
    total, correct = 0.0, 0
    theirs.train()
    for images, labels in training_batches(tiny_data, cpu, seed_everything(3)):
        optimizer.zero_grad()
        logits = theirs(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
    assert (got.loss, got.top1) == (pytest.approx(total / 24, rel=1e-5), correct / 24)


# What moves in each phase, and what does not


def test_phase_1_moves_the_head_and_nothing_else_and_not_the_given_model(tmp_path):
    model = small_model()
    before = fingerprint(model)
    result = small_phase(tmp_path, model=model, **PHASES[1])
    assert backbone_print(result.model) == backbone_print(model)
    assert fingerprint(model) == before != fingerprint(result.model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_phase_2_moves_every_parameter_even_of_a_frozen_model(tmp_path):
    start = small_model()
    fu.freeze_backbone(start)
    result = small_phase(tmp_path, model=start, epochs=1)
    for (name, old), new in zip(start.named_parameters(), result.model.parameters(), strict=True):
        assert not torch.equal(old, new), name


# A phase


def test_training_learns_and_its_seed_alone_decides_what(tmp_path):
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        seed_everything(number)  # must not matter: dropout, order and crops follow the phase's seed
        runs.append(small_phase(tmp_path / str(number), seed=seed))
    assert facts(runs[0]) == facts(runs[1])
    assert history(runs[0]) != history(runs[2])
    assert runs[0].history[-1]["train_loss"] < runs[0].history[0]["train_loss"] - 0.1
    assert runs[0].best_val_accuracy > 0.4


def test_each_phase_starts_at_its_own_rates_and_steplr_lowers_them(tmp_path, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "step_size", 2)
    for number, groups in ((1, {"classifier": 0.02}), (2, {"stem": 0.01, "classifier": 0.02})):
        rows = small_phase(tmp_path, epochs=3, **PHASES[number]).history
        smaller = {name: pytest.approx(rate / 10) for name, rate in groups.items()}
        assert [row["learning_rates"] for row in rows] == [groups, groups, smaller]


def test_one_cycle_rises_to_its_rate_and_falls_to_nothing_in_any_number_of_epochs():
    optimizer, rates = torch.optim.SGD(small_model().parameters(), 0.5), []
    scheduler = training.make_scheduler(optimizer, Phase(2, 7, 0.5, one_cycle=True))
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.42, 1.00, 0.91, 0.69, 0.42, 0.17, 0.02], abs=0.005)
    for epochs in range(1, 6):
        factors = [training.one_cycle((epoch + 0.5) / epochs) for epoch in range(epochs)]
        assert min(factors) > 0 and 0.4 < max(factors) <= 1


@pytest.mark.parametrize("number", PHASES)
def test_the_best_epoch_on_val_is_kept_in_memory_and_on_disk(tmp_path, number):
    result = small_phase(tmp_path, **PHASES[number])
    accuracies = [row["val_accuracy"] for row in result.history]
    assert result.best_val_accuracy == max(accuracies)
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1
    assert result.val_correct.float().mean(1).tolist() == pytest.approx(accuracies)
    checkpoint = load_checkpoint(tmp_path / f"small_phase{number}_best.pth")
    loaded = model_from_checkpoint(checkpoint)
    assert checkpoint["epoch"] == result.best_epoch
    assert fingerprint(loaded) == fingerprint(result.model)
    again = evaluate(loaded, evaluation_batches(small_data().val, CPU), CPU)
    assert again.top1 == result.best_val_accuracy


def test_every_title_gives_its_files_a_name():
    titles = ("", "From scratch", "第一", "!!")
    stems = [Phase(2, 1, 0.1, title=title).stem for title in titles]
    assert stems == ["phase2", "fromscratch", "第一", "phase2"]


def test_weights_trained_on_the_device_at_hand_are_loaded_without_this_package(tmp_path):
    data, device = small_data(), choose_device()
    start = build_model("resnet18", num_classes=4, weights=None)
    result = train_phase(start, data, device, Phase(2, 1, 0.001, 0.001), tmp_path)
    logits, _ = fu.predict_logits(result.model, data.test, device)
    plain = torchvision.models.resnet18(num_classes=4).eval()
    plain.load_state_dict(torch.load(result.checkpoint, weights_only=True)["state_dict"])
    again = plain(eval_batch(torch.from_numpy(data.test.images), 32))
    assert torch.allclose(again, logits, atol=0.05)


# What the faster recipes do otherwise


@pytest.mark.parametrize(
    ("count", "labels"), [(4, [0, 1, 2, 3]), (2, [0, 1, 0, 1]), (4, [0, 2, 2, 3])]
)
def test_a_fitted_head_computes_what_scikit_learn_predicts(count, labels):
    """For four classes, two (of which scikit-learn returns one row), and one without photographs."""
    data, model = small_data(), build_model("small", num_classes=count, weights=None)
    train = replace(data.train, labels=torch.tensor(labels)[data.train.labels])
    backbone = backbone_print(model)
    result = fit_head(model, replace(data, train=train), CPU)
    images = torch.from_numpy(train.images)
    both = [(eval_batch(x, 32), train.labels) for x in (images, images.flip(-1))]
    features, labels = features_of(model, iter(both), CPU)
    head = LogisticRegression(C=HEAD_C, max_iter=1000)
    theirs = make_pipeline(StandardScaler(), head).fit(features, labels)
    expected = torch.zeros(len(features), count, dtype=torch.double)
    expected[:, head.classes_] = torch.from_numpy(theirs.predict_proba(features))
    ours = models.classifier_of(model.eval())(features).softmax(1)
    assert torch.allclose(ours.double(), expected, atol=2e-3) and backbone_print(model) == backbone
    assert result.top1 == pytest.approx(theirs.score(features, labels))


def test_the_final_head_sees_train_and_val_but_each_fifth_of_val_is_classified_without_it(cpu):
    data, model = small_data(), small_model()
    _, val = fit_final_head(model, data, cpu)
    x, y = mirrored_features(model, data.train, cpu, image_size=32)
    val_x, val_y = mirrored_features(model, data.val, cpu, image_size=32)
    held_out = data.val.labels.argsort(stable=True).argsort() % FOLDS == 0
    assert sorted(data.val.labels[held_out].tolist()) == [0, 1, 2, 3]  # of every class
    first_fifth = (~held_out.repeat(2), val_x[:16][held_out], val.logits[held_out])
    final = (held_out.repeat(2) >= 0, val_x, models.classifier_of(model)(val_x))
    for others, asked, ours in (first_fifth, final):
        head = make_pipeline(StandardScaler(), LogisticRegression(C=HEAD_C, max_iter=1000))
        head.fit(torch.cat([x, val_x[others]]), torch.cat([y, val_y[others]]))
        theirs = torch.from_numpy(head.predict_proba(asked))
        assert torch.allclose(ours.softmax(1).double(), theirs, atol=2e-3)


def test_the_last_row_fits_the_head_to_the_trained_backbone(tmp_path, capsys):
    trained = small_phase(tmp_path / "plain", epochs=2)
    capsys.readouterr()
    fitted = small_phase(tmp_path / "fitted", epochs=2, fit_head=True)
    assert "Phase 2: 72 images" in capsys.readouterr().out  # its bar comes to the end
    assert history(fitted)[:2] == history(trained)
    last = fitted.history[2]
    assert last["learning_rates"] == {} and last["train_loss"] < fitted.history[1]["train_loss"]
    scored = fitted.val_logits.argmax(1) == small_data().val.labels
    assert scored.float().mean().item() == fitted.best_val_accuracy == last["val_accuracy"]
    assert fitted.head_saw_val and not trained.head_saw_val
    assert fitted.best_epoch == 3 and backbone_print(fitted.model) == backbone_print(trained.model)


# What cannot work is told before the first step


CANNOT_WORK = {
    "head_lr of Phase 2 .* it is nan": {"head_lr": float("nan")},
    "4 outputs": {"model": build_model("small", num_classes=9, weights=None)},
    "two classes": {"data": replace(small_data(), train=small_data().train.subset([0]))},
}


@pytest.mark.parametrize("told", CANNOT_WORK)
def test_what_cannot_work_is_named_before_the_first_step(tmp_path, told):
    with pytest.raises(FlowersError, match=told):
        small_phase(tmp_path / "new", **CANNOT_WORK[told])
    assert not list(tmp_path.iterdir())
