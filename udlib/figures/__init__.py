"""Pictures: plots of numbers, maps over images, graphs of labels, boxes."""
