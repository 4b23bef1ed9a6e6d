"""The trained model in use: names for photographs, exported files, and the page that goes with them."""

from flowers_utils.deploy.export import calls_on_one_image, export_model, open_export
from flowers_utils.deploy.model_card import write_model_card
from flowers_utils.deploy.predictor import photo_from, photo_picker
