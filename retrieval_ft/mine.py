"""`python -m retrieval_ft.mine [CONFIG]`: prepare a dataset and mine hard negatives."""

from retrieval_ft.cli import run_command

if __name__ == "__main__":
    run_command("mine")
