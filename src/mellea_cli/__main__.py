"""`python -m mellea_cli`: the same as `mellea`."""

from mellea_cli.cli.entry import main

if __name__ == "__main__":
    main()
