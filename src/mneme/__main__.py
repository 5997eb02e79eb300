"""`python -m mneme`: the same as the command `mneme`."""

from mneme.cli.main import main

if __name__ == "__main__":
    main()
