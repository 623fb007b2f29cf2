"""The diagrams of the lessons: drawn by code, stored as `notebooks/images/*.svg`, shown in the lessons' Markdown.

`python -m notebooks.diagrams [--only 03]` draws them; `make lessons` does so before it builds the notebooks. Each lesson
has a file here, `lesson_NN.py`, whose `DIAGRAMS` maps a name to the function that draws it. `drawing.py` has the canvas,
`parts.py` what several diagrams show.
"""
