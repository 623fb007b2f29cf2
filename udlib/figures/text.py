"""Tables and numbers as text, for the terminal and for Markdown."""

from collections.abc import Sequence


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table for the terminal.

    Args:
        rows: The cells of each row, the head first. All rows have the same length.

    Returns:
        One line per row, with the first column aligned to the left and the others to the right.

    Example:
        >>> print(as_text([["run", "mAP"], ["a", "75.0"]]))
        run   mAP
        a    75.0
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    )


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table for Markdown.

    Args:
        rows: The cells of each row, the head first. All rows have the same length.

    Returns:
        A Markdown table, with all columns but the first aligned to the right.

    Example:
        >>> print(as_markdown([["run", "mAP"], ["a", "75.0"]]))
        | run | mAP |
        |---|--:|
        | a | 75.0 |
    """
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|---|{'--:|' * (len(rows[0]) - 1)}", *body])


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural where the number is not 1.

    Args:
        number: How many there are.
        noun: What is counted, in the singular; its plural ends in s.

    Returns:
        The number, with commas between thousands, and the noun.

    Example:
        >>> counted(1, "image"), counted(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
