"""`python -m retrieval_ft.train [CONFIG]`: the main job, from a corpus to a better retriever."""

from retrieval_ft.cli import run_command

if __name__ == "__main__":
    run_command("train")
