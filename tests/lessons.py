"""Lessons as the tests see them: sources, committed notebooks, and what can be wrong with one."""

import ast
import base64
import importlib.util
import os
import re
import symtable
import tempfile
from functools import cache
from html.parser import HTMLParser
from itertools import zip_longest
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LONGEST_CELL = 15  # lines
SHOWS = {"show", "print", "display", "check", "check_guess", "check_choice", "quiz"}  # calls that must leave an output
# An output may name no folder of the machine it was made on.
MACHINE = re.compile(
    "|".join(
        [
            *map(re.escape, (str(ROOT), str(Path.home()), tempfile.gettempdir() + os.sep)),
            r"/tmp/\w",
            r"/home/\w",
            r"/Users/\w",
            r"/root\b",
            r"[A-Z]:\\+Users",
        ]
    )
)

_spec = importlib.util.spec_from_file_location("build_lessons", ROOT / "notebooks" / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SOURCES = build.sources()
NOTEBOOKS = [(source, path, solved) for source in SOURCES for path, solved in build.targets(source).items()]


def name_of(value):
    """How a lesson is called in the names of tests: 01_multilabel_data, solutions/01_multilabel_data."""
    if isinstance(value, Path):
        return f"solutions/{value.stem}" if value.parent.name == "solutions" else value.stem
    return None


@cache
def cells(source):
    return build.read_source(source)


def exercises(source):
    """Numbers of the exercises of a lesson, in order."""
    return [number for cell in cells(source) if (number := build.exercise_of(cell, "exercise"))]


def cells_of(source, role, number):
    """The cells that play a role ("exercise", "solution" or "mistake") in an exercise."""
    return [cell for cell in cells(source) if build.exercise_of(cell, role) == number]


def check_cells(source, number):
    """The cells that ask about an exercise: check("01.1", …)."""
    asks = re.compile(rf'^check\("{re.escape(number)}"', re.M)
    return [cell for cell in cells(source) if cell.cell_type == "code" and asks.search(cell.source)]


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(output):
    """All words of an output, whatever its kind."""
    data = output.get("data", {})
    texts = [output.get("text", ""), *(data[kind] for kind in data if kind.startswith("text/"))]
    return "\n".join(build.PNG.sub("", "".join(text)) for text in texts)


def descriptions(page):
    """What stands for each image of a piece of HTML, for those who cannot see it; "" where nothing does."""
    found, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, attributes: (
        found.append(dict(attributes).get("alt") or "") if tag == "img" else None
    )
    parser.feed(page)
    return found


def drawn(explorer):
    """The bytes of the PNG file that an explorer shows."""
    (encoded,) = build.PNG.findall(explorer.picture.value)
    return base64.b64decode(encoded)


def answers(notebook):
    """What the checks of the exercises said: number → the sentence after "Exercise 01.1: "."""
    printed = "\n".join(text_of(output) for cell in code_of(notebook) for output in cell.outputs)
    return dict(re.findall(r"^Exercise ([\d.]+): (.*)$", printed, re.M))


def must_show(code):
    """Whether a cell has to leave an output: it calls one of SHOWS, or ends in a name whose value is then displayed."""
    statements = ast.parse(re.sub(r"^[%!].*$", "", code, flags=re.M)).body
    values = [statement.value for statement in statements if isinstance(statement, ast.Expr)]
    calls = {value.func.id for value in values if isinstance(value, ast.Call) and isinstance(value.func, ast.Name)}
    shown = (ast.Name, ast.Attribute, ast.Subscript)
    displayed = isinstance(statements[-1], ast.Expr) and isinstance(values[-1], shown)
    return bool(calls & SHOWS) or displayed


def complaints(notebook, source, solved):
    """Everything that is wrong with an executed notebook of this source; an empty list for a good one."""
    return [
        *differences(notebook, build.build(source, solved)),
        *faults_of_code(notebook),
        *faults_of_outputs(notebook),
        *faults_of_answers(notebook, source, solved),
    ]


def differences(notebook, expected):
    """Where a notebook is not what its source gives."""

    def parts(found):
        return [(cell.cell_type, cell.id, cell.source, cell.metadata.get("tags", [])) for cell in found.cells]

    return [
        f"not what its source gives: cell {here[1] if here else there[1]}"
        for here, there in zip_longest(parts(notebook), parts(expected))
        if here != there
    ]


def faults_of_code(notebook):
    code = code_of(notebook)
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"not executed in order from a clean kernel: {counts}"
    for cell in code:
        if (length := len(cell.source.splitlines())) > LONGEST_CELL:
            yield f"cell {cell.id} has {length} lines, more than {LONGEST_CELL}"


def faults_of_outputs(notebook):
    for cell in code_of(notebook):
        if must_show(cell.source) and not cell.outputs:
            yield f"cell {cell.id} has lost its output"
        if build.CHECK_TAG in cell.metadata.get("tags", []) and not "".join(map(text_of, cell.outputs)).strip():
            yield f"cell {cell.id} is to be compared and has no text to compare with"
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"cell {cell.id} shows an error or a warning: {(output.get('evalue') or text_of(output))[:200]}"
            if found := MACHINE.search(text_of(output)):
                yield f"cell {cell.id} names a folder of the machine it ran on: {found[0]}"
            data = output.get("data", {})
            alts = descriptions(data.get("text/html", "")) + [""] * ("image/png" in data)
            for alt in alts:
                if len(alt.split()) < 3:
                    yield f"cell {cell.id} has a picture without words for those who cannot see it: {alt!r}"


def faults_of_answers(notebook, source, solved):
    said = answers(notebook)
    for number in exercises(source):
        wanted = "correct" if solved else "not attempted yet"
        if not said.get(number, "").startswith(wanted):
            yield f"exercise {number} is answered {said.get(number)!r}, expected is {wanted!r}"


def names(cell, context):
    """The names that a cell makes (`ast.Store`) or uses (`ast.Load`)."""
    tree = ast.parse(cell.source)
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
    if context is ast.Store:
        found |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        found |= {
            alias.asname or alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
    return found


def names_at_top(cell):
    """The names that a cell binds in the notebook itself: not those inside its functions, unless they are global."""
    tables = [symtable.symtable(cell.source, "cell", "exec")]
    for table in tables:
        tables += table.get_children()
    symbols = [(symbol, table is tables[0]) for table in tables for symbol in table.get_symbols()]
    return {
        symbol.get_name()
        for symbol, at_top in symbols
        if (symbol.is_assigned() or symbol.is_imported()) and (at_top or symbol.is_declared_global())
    }


def cut(number, *wanted):
    """A copy of a committed lesson with the first cell that holds all these words, and the cells it builds upon."""
    source = next(path for path in SOURCES if path.stem.startswith(number))
    notebook = nbformat.read(ROOT / "notebooks" / f"{source.stem}.ipynb", as_version=4)
    code = code_of(notebook)
    last = next(k for k, cell in enumerate(code) if all(words in cell.source for words in wanted))
    kept, needed = [code[last]], names(code[last], ast.Load)
    for cell in reversed(code[:last]):
        if made := names(cell, ast.Store) & needed:
            kept.insert(0, cell)
            needed = (needed - made) | names(cell, ast.Load)
    notebook.cells = kept
    return notebook
