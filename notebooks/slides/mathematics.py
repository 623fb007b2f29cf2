"""A Sphinx extension: equations become MathML when the slides are built, so that a browser needs no script and no network."""

from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

XML = "http://www.w3.org/1998/Math/MathML"
PRIME = "′"
FUNCTIONS = {"log", "exp", "max", "min", "sin", "cos", "lim"}


def tag(name: str) -> str:
    """The name of a MathML element with its namespace."""
    return f"{{{XML}}}{name}"


def lower_prime(element: ElementTree.Element) -> None:
    """Put a prime beside its letter: as a superscript, most fonts draw it much too small and too high."""
    if element.tag not in (tag("msup"), tag("msubsup")) or element[-1].text != PRIME:
        return
    letter = element[0]
    beside = ElementTree.Element(tag("mrow"))
    prime = ElementTree.Element(tag("mo"), lspace="0", rspace="0")
    prime.text = PRIME
    beside.extend([letter, prime])
    element[:] = [beside, *element[1:-1]]
    element.tag = tag("msub") if element.tag == tag("msubsup") else tag("mrow")


def space_function(element: ElementTree.Element) -> None:
    """Leave a little space around the name of a function, as in `y log f`."""
    if element.tag == tag("mi") and element.text in FUNCTIONS:
        element.tag = tag("mo")
        element.attrib = {"lspace": "0.17em", "rspace": "0.17em"}


def mathml(latex: str, display: str = "inline") -> str:
    """An equation as MathML."""
    ElementTree.register_namespace("", XML)
    root = ElementTree.fromstring(convert(latex, display=display))
    for element in root.iter():
        lower_prime(element)
        space_function(element)
    return ElementTree.tostring(root, encoding="unicode")


def visit_inline(translator: nodes.NodeVisitor, node: nodes.Node) -> None:
    """Write an equation in a line."""
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(translator: nodes.NodeVisitor, node: nodes.Node) -> None:
    """Write an equation in a paragraph of its own."""
    translator.body.append(f'<div class="equation">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
