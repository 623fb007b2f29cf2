"""Settings of the book for Sphinx. `python -m docs.book.build` reads them, and so does the step that stages the pages."""

import os

from udlib import __version__

project = "Calibration and distillation for multi-label images"
author = "The udlib authors"
release = __version__
html_title = "Calibration and distillation"
language = "en"

# Where readers find the course. There is no public address yet, so nothing is invented here: while `repository` is empty,
# no page links to Binder or to Colab. `owner/name` on GitHub turns these links on. Nobody has tried them yet.
repository = os.environ.get("UDLIB_REPOSITORY", "")
branch = os.environ.get("UDLIB_BRANCH", "main")
binder = "https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/{path}"
colab = "https://colab.research.google.com/github/{repository}/blob/{branch}/{path}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "notebooks.slides.mathematics",
    "docs.book.cells",
    "docs.book.docstrings",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
html_theme = "sphinx_book_theme"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_js_files = ["print.js"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
html_last_updated_fmt = None

# The pages are Markdown with the extensions of JupyterLab that the lessons use.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# The outputs that are stored in the notebooks are shown; nothing is executed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # of outputs; the default knows neither tables nor equations
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"

# No script comes from elsewhere: equations are MathML, and widgets are stored as pictures.
html_math_renderer = "mathml"
nb_ipywidgets_js = {}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "returns_style"), ("Sources", "returns_style")]
default_role = "literal"

suppress_warnings = [
    "myst.header",  # some pages skip a level of headings
    "ref.python",  # a name in a signature may be that of two classes
]
