"""What goes wrong in training is said in a sentence, and costs an epoch at most."""

import errno

import pytest
import torch
from small_training import NAME, SmallNet, facts, history, small_phase

import transfer_learning_config as config
from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import load_checkpoint
from flowers_utils.storage.files import load_tensors

BEST, STATE = f"{NAME}_phase2_best.pth", f"{NAME}_phase2_resume.pth"


@pytest.fixture
def quiet(tmp_path_factory, small_net, monkeypatch):
    """What Phase 2 gives, eight images a step, when nothing disturbs it."""
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 8)
    return facts(small_phase(tmp_path_factory.mktemp("quiet")))


def in_epoch(patch, epoch, act):
    """Let `act(network)` happen in the second training step of an epoch."""
    forward, steps = SmallNet.forward, []

    def disturbed(self, images):
        steps.extend([1] if self.training else [])
        if self.training and len(steps) == 3 * (epoch - 1) + 2:  # three steps an epoch
            act(self)
        return forward(self, images)

    patch.setattr(SmallNet, "forward", disturbed)


def spoil(network):
    torch.nn.init.constant_(network.classifier[1].weight, torch.nan)


def no_memory(_):
    torch.empty(2**58)


FAULTS = {
    "diverged": (5, spoil, "learning rate ten times smaller.* The first 4 epochs are saved"),
    "diverged at once": (1, spoil, "Phase 2: .*no longer a finite.* No epoch is saved yet"),
    "no memory": (2, no_memory, r"out of memory at batch size 8.*\['batch_size'\] = 4"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_explained_and_the_phase_goes_on_before_it(tmp_path, monkeypatch, quiet, fault):
    epoch, act, told = FAULTS[fault]
    with monkeypatch.context() as patch, pytest.raises(FlowersError, match=told):
        in_epoch(patch, epoch, act)
        small_phase(tmp_path)
    assert (tmp_path / BEST).exists() == (epoch > 1)
    assert facts(small_phase(tmp_path)) == quiet


# Torch's own writer does not say why it failed.
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), RuntimeError("PytorchStreamWriter")]
)
def test_a_full_disk_does_not_stop_training(tmp_path, monkeypatch, quiet, error):
    def full(content, path):
        path.write_bytes(b"half a fi")
        raise error

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="goes on, but: The disk"):
        in_epoch(patch, 2, lambda _: patch.setattr(torch, "save", full))
        result = small_phase(tmp_path)
    assert "Not everything could be saved: The disk is full" in result.note
    assert history(result) == quiet[0]  # and the best weights are in memory:
    assert {key: value.tolist() for key, value in result.model.state_dict().items()} == quiet[2]
    assert load_checkpoint(result.checkpoint)["epoch"] == 1  # the earlier files are complete
    assert len(load_tensors(tmp_path / STATE)["best"]["history"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, STATE]
    assert facts(small_phase(tmp_path)) == quiet
