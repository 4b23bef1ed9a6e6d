"""The trained model in use: names for photographs, exported files, and the page that goes with them."""

from flowers_utils.deploy.export import export_model
from flowers_utils.deploy.model_card import write_model_card
from flowers_utils.deploy.predictor import photo_from, photo_picker
