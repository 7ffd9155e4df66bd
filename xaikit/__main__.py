"""``python -m xaikit``, which is also what torchrun starts."""

from xaikit.cli import main

if __name__ == "__main__":
    main()
