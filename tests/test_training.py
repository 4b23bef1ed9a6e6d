import pytest
import torch

import transfer_learning_config as config
from flowers_utils.data import batches
from flowers_utils.device import choose_device
from flowers_utils.models import (
    backbone_features,
    build_model,
    classifier_of,
    fingerprint,
    freeze_backbone,
    frozen_trunk,
)
from flowers_utils.phases import train_phase
from flowers_utils.predictions import predict_features
from flowers_utils.storage.checkpoints import load_checkpoint, model_from_checkpoint
from flowers_utils.training import run_epoch
from flowers_utils.transforms import eval_batch


def fresh_model(data, seed=0):
    return build_model("resnet18", num_classes=data.num_classes, weights=None, seed=seed)


def phase(data, device, folder, *, number=1, epochs=2, **kwargs):
    rates = {"head_lr": 0.001} if number == 1 else {"head_lr": 0.001, "backbone_lr": 0.0001}
    return train_phase(
        fresh_model(data),
        data,
        device,
        phase=number,
        epochs=epochs,
        folder=folder,
        **rates | kwargs,
    )


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def test_means_are_weighted_by_images_not_by_batches(tiny_data, cpu):
    model = fresh_model(tiny_data).eval()
    for size in (16, 5):  # 5: the last batch has one image
        data = batches(tiny_data.val, batch_size=size, device=cpu)
        result = run_epoch(model, data, cpu, prepare=lambda images: eval_batch(images, 32))
        with torch.no_grad():
            logits = model(eval_batch(torch.from_numpy(tiny_data.val.images), 32))
        loss = torch.nn.functional.cross_entropy(logits, tiny_data.val.labels).item()
        right = (logits.argmax(1) == tiny_data.val.labels).float().mean().item()
        assert result.loss == pytest.approx(loss, rel=1e-4)
        assert (result.top1, result.top5, result.count) == (pytest.approx(right), 1.0, 16)


def test_evaluation_changes_nothing(tiny_data, cpu):
    model = fresh_model(tiny_data).train()
    before = fingerprint(model, backbone_only=False)
    data = batches(tiny_data.val, batch_size=8, device=cpu)
    run_epoch(model, data, cpu, prepare=lambda images: eval_batch(images, 32))
    assert fingerprint(model, backbone_only=False) == before


def test_phase_1_moves_the_head_and_nothing_else(tiny_data, cpu, tmp_path):
    model = fresh_model(tiny_data)
    before, head = fingerprint(model), model.fc.weight.clone()
    result = train_phase(model, tiny_data, cpu, phase=1, epochs=2, head_lr=0.001, folder=tmp_path)
    assert fingerprint(result.model) == before
    assert not torch.equal(result.model.fc.weight, head)


def test_phase_2_moves_every_parameter(tiny_data, cpu, tmp_path):
    start = fresh_model(tiny_data)
    result = phase(tiny_data, cpu, tmp_path, number=2, epochs=1)
    for (name, old), new in zip(start.named_parameters(), result.model.parameters(), strict=True):
        assert not torch.equal(old, new), name


def test_cached_validation_features_give_the_same_numbers(tiny_data, cpu, tmp_path):
    """Phase 1 evaluates its head on features computed once; the long way round must agree."""
    result = phase(tiny_data, cpu, tmp_path, epochs=1)
    data = batches(tiny_data.val, batch_size=32, device=cpu)
    long_way = run_epoch(result.model, data, cpu, prepare=lambda images: eval_batch(images, 32))
    row = result.history[0]
    assert row["val_accuracy"] == long_way.top1
    assert row["val_loss"] == pytest.approx(long_way.loss, rel=1e-4)


def test_cached_features_are_exact(tiny_data, cpu):
    model = fresh_model(tiny_data)
    freeze_backbone(model)
    trunk, head = frozen_trunk(model), classifier_of(model)
    images = eval_batch(torch.from_numpy(tiny_data.val.images), 32)
    with torch.no_grad():
        cached = trunk(images)
        for _ in range(3):
            assert torch.equal(head(cached), head(trunk(images)))


def test_training_learns(tiny_data, cpu, tmp_path):
    result = phase(tiny_data, cpu, tmp_path, number=2, epochs=6, backbone_lr=0.001)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"] - 0.3
    assert result.best_val_accuracy > 0.5


def test_same_seed_same_history(tiny_data, cpu, tmp_path):
    runs = [phase(tiny_data, cpu, tmp_path / str(i), number=2) for i in range(2)]
    other = phase(tiny_data, cpu, tmp_path / "other", number=2, seed=1)
    histories = [without_seconds(run.history) for run in (*runs, other)]
    assert histories[0] == histories[1] != histories[2]


def test_each_phase_starts_at_its_own_rates_and_steps_them(tiny_data, cpu, tmp_path, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "step_size", 1)
    first = phase(tiny_data, cpu, tmp_path)
    second = phase(tiny_data, cpu, tmp_path, number=2)
    assert [row["learning_rates"]["fc"] for row in first.history] == pytest.approx([1e-3, 1e-4])
    assert [row["learning_rates"]["fc"] for row in second.history] == pytest.approx([1e-3, 1e-4])
    assert second.history[0]["learning_rates"]["stem"] == pytest.approx(1e-4)


def test_the_best_epoch_on_val_is_kept(tiny_data, cpu, tmp_path):
    result = phase(tiny_data, cpu, tmp_path, number=2, epochs=4, backbone_lr=0.001)
    accuracies = [row["val_accuracy"] for row in result.history]
    assert result.best_val_accuracy == max(accuracies)
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1
    data = batches(tiny_data.val, batch_size=32, device=cpu)
    again = run_epoch(result.model, data, cpu, prepare=lambda images: eval_batch(images, 32))
    assert again.top1 == result.best_val_accuracy


def test_the_checkpoint_of_a_phase_is_its_best_model(tiny_data, cpu, tmp_path):
    result = phase(tiny_data, cpu, tmp_path, number=2)
    checkpoint = load_checkpoint(tmp_path / "resnet18_phase2_best.pth")
    loaded = model_from_checkpoint(checkpoint)
    assert fingerprint(loaded, backbone_only=False) == fingerprint(
        result.model, backbone_only=False
    )
    assert checkpoint["epoch"] == result.best_epoch


def test_plain_torchvision_loads_the_checkpoint(tiny_data, cpu, tmp_path):
    import torchvision

    phase(tiny_data, cpu, tmp_path, epochs=1)
    content = torch.load(tmp_path / "resnet18_phase1_best.pth", weights_only=True)
    model = torchvision.models.resnet18(num_classes=4)
    model.load_state_dict(content["state_dict"])
    assert all(v.dtype == torch.float32 for v in model.parameters())


def test_a_phase_runs_on_the_device_at_hand(tiny_data, tmp_path):
    result = phase(tiny_data, choose_device(), tmp_path, number=2, epochs=1)
    assert len(result.history) == 1


def test_features_of_the_larger_train_split_are_those_at_the_networks_size(tiny_data, cpu):
    model = fresh_model(tiny_data)
    found, _ = predict_features(model, tiny_data.train, cpu, image_size=32)
    resized = eval_batch(torch.from_numpy(tiny_data.train.images), 32)
    with torch.no_grad():
        expected = backbone_features(model.eval(), resized)
    assert torch.allclose(found, expected, atol=1e-5)
