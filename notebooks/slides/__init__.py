"""The slides: one deck for each lesson, `docs/slides/NN_name.md`, built by `python -m notebooks.slides` into `build/slides`.

`docs/slides/README.md` describes the format. `lesson.py` reads an executed lesson: its figures, words and numbers. `deck.py`
reads a deck and finds what is wrong with it. `build.py` turns the decks into HTML with Sphinx and reveal.js. `mathematics.py`
turns equations into MathML, so that nothing is loaded from a network. `browser.py` prints the decks to PDF and measures slides.
"""
