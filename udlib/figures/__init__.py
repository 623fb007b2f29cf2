"""Figures: `plots` of numbers and pictures, `overlays` of maps, `label_graphs` of classes, `boxes` of detections."""
