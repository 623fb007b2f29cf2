"""Mean and standard deviation of the colour channels, by which images are normalised."""

# Of ImageNet's training images, for values in [0, 1]; torchvision's networks and the course's small ones take these.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# These bring values in [0, 1] to [-1, 1], as networks of TensorFlow take them.
SYMMETRIC_MEAN = (0.5, 0.5, 0.5)
SYMMETRIC_STD = (0.5, 0.5, 0.5)
