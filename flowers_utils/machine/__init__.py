"""This machine: is it ready for the lesson, how fast is a model here, where does the time go."""

from flowers_utils.machine.epoch_time import where_time_goes
from flowers_utils.machine.preflight import preflight
from flowers_utils.machine.speed import count_flops, latency_in_turn, profile_model

__all__ = ["count_flops", "latency_in_turn", "preflight", "profile_model", "where_time_goes"]
