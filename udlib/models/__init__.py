"""A trained model in one folder: its network, how it prepares an image, and how its logits become probabilities.

The folder is written as a checkpoint is (`udlib.training.checkpoints`), in one atomic step: the weights as safetensors
under their SHA-256, and `state.json` with everything else. Nothing in it is ever unpickled.
"""

from udlib.models.folder import load, save_trained
from udlib.models.trained import Confidences, Picture, TrainedModel

__all__ = ["Confidences", "Picture", "TrainedModel", "load", "save_trained"]
