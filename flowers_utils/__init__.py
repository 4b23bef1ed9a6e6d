"""Helpers of the transfer-learning lesson.

The lesson itself, to be read in this order: device, data, transforms, models, phases, training,
evaluation. The rest is the machinery behind it.
"""

try:
    from flowers_utils import (
        config_check,
        data,
        datasets,
        deploy,
        evaluation,
        exercises,
        insight,
        machine,
        models,
        plotting,
        storage,
        transforms,
    )
    from flowers_utils.datasets.load import load_data, starting_weights
    from flowers_utils.deploy.predictor import Predictor
    from flowers_utils.device import choose_device, seed_everything
    from flowers_utils.errors import FlowersError
    from flowers_utils.evaluation import predict_logits
    from flowers_utils.models import build_model, freeze_backbone, parameter_groups
    from flowers_utils.storage.checkpoints import (
        load_checkpoint,
        model_from_checkpoint,
        save_checkpoint,
    )
    from flowers_utils.training import Phase, evaluate, train_one_epoch, train_phase
    from flowers_utils.transforms import evaluation_batches, training_batches
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"The package '{missing.name}' is missing. In a terminal, in the project's folder and with "
        "its virtual environment active, run: python -m pip install -r requirements.txt"
    ) from None

config_check.absolute_paths()
