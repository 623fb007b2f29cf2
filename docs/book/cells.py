"""A Sphinx extension: each code cell of a lesson has its number, as in JupyterLab, and an address."""

from docutils import nodes
from sphinx.application import Sphinx


def number_cells(app: Sphinx, document: nodes.document) -> None:
    """Write `In [8]` above each cell that was run, and give it the address `#in-8`. The page of equations links to these."""
    for cell in document.findall(nodes.container):
        number = cell.get("exec_count") if cell.get("nb_element") == "cell_code" else None
        if number and cell.children:
            source = cell.children[0]
            label = f'<p class="cell-number">In&#160;[{number}]</p>'
            source.insert(0, nodes.raw("", label, format="html"))
            cell["ids"].append(f"in-{number}")
            # MyST looks here for the places that a link of another page may name.
            places = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
            places[f"in-{number}"] = (0, f"in-{number}", f"In [{number}]")


def setup(app: Sphinx) -> dict[str, bool]:
    """Number the cells once a page was read."""
    app.connect("doctree-read", number_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
