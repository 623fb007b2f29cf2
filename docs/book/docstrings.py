"""A Sphinx extension: docstrings write names as Markdown does, in single backticks; the API pages show them as code."""

import re

from sphinx.application import Sphinx

CODE = re.compile(r"(``[^`]+``)|(?<![`:\\])`([^`]+)`(?![`_])")
SIGN = re.compile(r"\||(?<=\w)::(?=\w)")  # a bar would begin a substitution, and file::name would be an address
OF_THE_PACKAGE = re.compile(r"udlib(\.\w+)+")


def code(match: re.Match[str]) -> str:
    """Return a piece of code as Sphinx reads it: a name of the package is a link, anything else is code."""
    doubled, name = match.groups()
    if doubled:
        return doubled
    return f":py:obj:`{name}`" if OF_THE_PACKAGE.fullmatch(name) else f"``{name}``"


def as_rst(line: str) -> str:
    """Return a line of a docstring, in which bars and double colons are signs like others."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    pieces = re.split(r"(``[^`]+``)", CODE.sub(code, line))
    return "".join(piece if k % 2 else SIGN.sub(r"\\\g<0>", piece) for k, piece in enumerate(pieces))


def rewrite(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Rewrite the lines of one docstring in place."""
    lines[:] = [as_rst(line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrite each docstring after napoleon has read its sections."""
    app.connect("autodoc-process-docstring", rewrite, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
