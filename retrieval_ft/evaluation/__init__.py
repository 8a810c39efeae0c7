"""Systems against metrics: per-query values, paired tests, the gate, and the report."""

from retrieval_ft.evaluation.compare import compare, difference_rows
from retrieval_ft.evaluation.gate import Outcome, Verdict, decide
from retrieval_ft.evaluation.markdown import report_markdown
from retrieval_ft.evaluation.metrics import (
    DEFINITIONS,
    METRICS,
    PerQuery,
    evaluate,
    parse_metric,
)
from retrieval_ft.evaluation.report import systems_table, systems_text, verdict_line
from retrieval_ft.evaluation.stats import Difference, holm, paired_test, smallest_detectable
from retrieval_ft.evaluation.trec import read_trec_run, write_trec_run

__all__ = [
    "DEFINITIONS",
    "METRICS",
    "Difference",
    "Outcome",
    "PerQuery",
    "Verdict",
    "compare",
    "decide",
    "difference_rows",
    "evaluate",
    "holm",
    "paired_test",
    "parse_metric",
    "read_trec_run",
    "report_markdown",
    "smallest_detectable",
    "systems_table",
    "systems_text",
    "verdict_line",
    "write_trec_run",
]
