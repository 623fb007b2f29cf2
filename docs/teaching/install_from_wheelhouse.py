"""Install the course from the wheels in this file's folder, without a network: run it in the folder of the project."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import venv
from pathlib import Path

WHEELS = Path(__file__).resolve().parent
LESSON = Path("notebooks") / "00_start_here.ipynb"


def unfit(manifest: dict, folder: Path) -> str | None:
    """Return why these wheels cannot be installed with this Python, and what to do; None if they can."""
    here = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "system": platform.system(),
        "machine": platform.machine(),
    }
    made_for = {name: manifest[name] for name in here}
    if made_for != here:
        wanted, found = (f"Python {p['python']} for {p['system']} on {p['machine']}" for p in (made_for, here))
        return (
            f"these wheels are made for {wanted}, and this is {found}: use such a Python, or make a wheelhouse with one "
            "like yours"
        )
    wrong = [
        name
        for name, size in manifest["wheels"].items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != size
    ]
    if wrong:
        share = f"{len(wrong)} of {len(manifest['wheels'])} wheels"
        return f"missing or incomplete here, {share} ({', '.join(wrong[:5])}): copy the folder again"
    return None


def python_of(environment: Path) -> Path:
    """Return the Python of an environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip(environment: Path, *words: str) -> None:
    """Run pip in an environment, with these wheels and no index.

    Raises:
        SystemExit: pip failed; its own words are above.
    """
    command = [str(python_of(environment)), "-m", "pip", "install", "--no-index", "--find-links", str(WHEELS), *words]
    if code := subprocess.run(command).returncode:
        raise SystemExit(f"pip stopped with code {code}: see its words above")


def main(words: list[str] | None = None) -> None:
    """Make the environment and install everything into it."""
    parser = argparse.ArgumentParser(prog="install.py", description=__doc__)
    parser.add_argument(
        "--project", type=Path, default=Path(), help="the folder of the project; default: this working folder"
    )
    parser.add_argument("--environment", type=Path, help="default: .venv in the folder of the project")
    options = parser.parse_args(words)
    manifest = json.loads((WHEELS / "wheelhouse.json").read_text(encoding="utf-8"))
    if problem := unfit(manifest, WHEELS):
        raise SystemExit(problem)
    project = options.project.resolve()
    environment = (options.environment or project / ".venv").resolve()
    if not python_of(environment).is_file():
        print(f"making '{environment}'", flush=True)
        venv.create(environment, with_pip=True)
    print(f"installing {len(manifest['wheels'])} packages; this takes a few minutes", flush=True)
    pip(environment, "--requirement", str(WHEELS / "requirements.txt"))
    if (project / LESSON).is_file():
        pip(environment, "--quiet", "--no-deps", "--editable", str(project))
        (environment / "ready").touch()  # `make lab` then installs nothing
        print("ready: `make lab` opens the course")
    else:
        pip(environment, "--quiet", "--no-deps", "--force-reinstall", "udlib")
        print(f"ready, without lessons: there is no {LESSON.as_posix()} in '{project}'")
    subprocess.run([str(python_of(environment)), "-m", "udlib", "doctor"], cwd=project, check=False)


if __name__ == "__main__":
    main()
