"""`python -m udlib` is the `udlib` command."""

from udlib.cli import main

if __name__ == "__main__":
    main()
