"""`python -m retrieval_ft`: the command line."""

from retrieval_ft.cli import main

if __name__ == "__main__":
    main()
