"""Helpers of the transfer-learning lesson: the names that the notebook uses."""

import flowers_utils.machine.installed  # before all others: says which package is missing
import flowers_utils.exercises
from flowers_utils.datasets.load import load_data, starting_weights
from flowers_utils.deploy.export import export_onnx, export_program
from flowers_utils.deploy.model_card import write_model_card
from flowers_utils.deploy.predictor import Predictor
from flowers_utils.deploy.quantization import quantize_onnx
from flowers_utils.device import choose_device, peak_memory_bytes, seed_everything
from flowers_utils.evaluation import evaluate, fit_temperature
from flowers_utils.insight.advice import (
    accuracy_by_training_size,
    diagnose,
    performance_table,
    why_not_comparable,
)
from flowers_utils.insight.anatomy import gradient_at_each_block, output_shapes, shape_in_words
from flowers_utils.insight.comparison import compare_backbones, comparison_table
from flowers_utils.insight.inside import (
    compare_phases,
    feature_maps,
    first_layer_filters,
    grad_cam,
    most_confident_mistakes,
    most_confused_pairs,
    nearest_neighbours,
)
from flowers_utils.machine.preflight import checks as preflight_checks
from flowers_utils.machine.preflight import short_report
from flowers_utils.machine.profiling import profile_model
from flowers_utils.machine.timing import where_time_goes
from flowers_utils.models import (
    build_model,
    count_parameters,
    fingerprint,
    freeze_backbone,
    how_far_each_group_moved,
    parameter_groups,
)
from flowers_utils.phases import train_phase
from flowers_utils.plotting.comparison import plot_comparison
from flowers_utils.plotting.evaluation import (
    plot_class_bars,
    plot_confused_pairs,
    plot_confusion,
    plot_feature_maps,
    plot_filters,
    plot_grad_cam,
    plot_mistakes,
    plot_neighbours,
    plot_phase_change,
    plot_reliability,
    plot_training_size,
)
from flowers_utils.plotting.training import (
    plot_architecture,
    plot_augmentations,
    plot_curves,
    plot_gradient_sizes,
    plot_movement,
    plot_own_photo,
    plot_predictions,
    plot_samples,
    plot_three_numbers,
    plot_time,
)
from flowers_utils.predictions import predict_features, predict_logits
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    model_from_checkpoint,
    save_checkpoint,
)
from flowers_utils.storage.results import describe_run, markdown_table, save_results
from flowers_utils.training import take_step
from flowers_utils.transforms import augment_batch, denormalise, draw_augmentation
