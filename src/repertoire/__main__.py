"""`python -m repertoire` is the `repertoire` command; `torchrun -m repertoire train ...` runs it on several ranks."""

from repertoire.cli import main

if __name__ == "__main__":
    main()
