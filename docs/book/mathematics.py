"""A Sphinx extension: equations become MathML when the book is built, so that a page needs neither a script nor a network."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

# MathML puts no space between the name of a function and its argument, as in "log p"; a bracket needs none.
FUNCTION_AND_ARGUMENT = re.compile(r"(<mi>(?:log|min|max|cos|exp)</mi>)(?=<m(?:i|n|sub|frac|sup|over)\b)")
SPACE = r'\1<mspace width="0.17em" />'


def mathml(latex: str, display: str) -> str:
    """Return an equation as MathML.

    Args:
        latex: The equation as it is written between dollar signs.
        display: "inline" in a line of text, "block" in a paragraph of its own.
    """
    return FUNCTION_AND_ARGUMENT.sub(SPACE, convert(latex, display=display))


def visit_inline(translator: nodes.NodeVisitor, node: nodes.Node) -> None:
    """Write an equation in a line."""
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(translator: nodes.NodeVisitor, node: nodes.Node) -> None:
    """Write an equation in a paragraph of its own."""
    translator.body.append(f'<div class="equation">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
