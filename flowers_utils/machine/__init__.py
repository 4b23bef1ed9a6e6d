"""This machine: is it ready for the lesson, and how fast is a model here?"""

from flowers_utils.machine.preflight import check_machine
from flowers_utils.machine.speed import latency_in_turn
