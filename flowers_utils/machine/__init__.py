"""This machine: is it ready for the lesson, how fast is a model here, where does the time go."""

from flowers_utils.machine.preflight import preflight
from flowers_utils.machine.speed import latency_in_turn, profile_model, where_time_goes
