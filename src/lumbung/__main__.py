"""`python -m lumbung` is the command `lumbung`."""

from lumbung.cli import main

if __name__ == "__main__":
    main()
