"""A tiny separable problem, class c present where stripe c of the image is bright, and a quick way to train on it."""

import torch

from udlib.backbones import backbone
from udlib.heads import DualBranchNet
from udlib.losses import dual_branch_loss
from udlib.training.batches import ArrayData
from udlib.training.loop import TrainingConfig

QUICK = TrainingConfig(epochs=3, batch_size=32, lr=0.01, weight_decay=1e-4, precision="fp32", shift=1)


def striped_images(count=96, classes=3, size=16, seed=0):
    draw = torch.Generator().manual_seed(seed)
    targets = (torch.rand(count, classes, generator=draw) < 0.4).to(torch.uint8)
    images = torch.randint(0, 80, (count, 3, size, size), generator=draw, dtype=torch.uint8)
    height = size // classes
    for c in range(classes):
        images[:, :, c * height : (c + 1) * height] += 150 * targets[:, c].view(-1, 1, 1, 1)
    return ArrayData(images, targets)


def net(seed=0, classes=3, calibration=True):
    torch.manual_seed(seed)
    return DualBranchNet(backbone("small_narrow"), classes, embedding=16, calibration=calibration)


def both_branches(model, batch):
    return dual_branch_loss(model(batch.images), batch.targets, lam=0.5, ignore=batch.ignore)


def same_weights(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)
