"""`report.html`: one file that a team takes into a review, without a script and without the network."""

from retrieval_ft.evaluation.html.page import report_html

__all__ = ["report_html"]
