"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Only = Annotated[str | None, typer.Option(metavar="PATTERN", help="Groups by name, e.g. digits* (or one run's key).")]
