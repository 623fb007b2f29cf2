"""Calibration and knowledge distillation for multi-label image classification: the package of the course."""

__version__ = "0.1.0"


def load(path):
    """The trained model in a folder that `udlib train` wrote: a `udlib.models.TrainedModel`; see `udlib.models.load`."""
    from udlib import models  # here, so that `import udlib` alone does not take torch's seconds

    return models.load(path)
