"""`python -m retrieval_ft.evaluate TARGET`: BM25, dense and hybrid on a run or a dataset."""

from retrieval_ft.cli import run_command

if __name__ == "__main__":
    run_command("evaluate")
