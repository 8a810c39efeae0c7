"""Systems against metrics: per-query values, paired tests, the gate, and the report."""

from retrieval_ft.evaluation.advise import Advice, advice_rows, advice_text, advise
from retrieval_ft.evaluation.compare import compare, difference_rows, document_groups
from retrieval_ft.evaluation.facts import assemble, facts_of, read_inputs
from retrieval_ft.evaluation.gate import (
    Outcome,
    Thresholds,
    Verdict,
    decide,
    general_deltas,
    verdict_document,
)
from retrieval_ft.evaluation.latency import Latency, paired_latency, percentiles
from retrieval_ft.evaluation.markdown import report_markdown
from retrieval_ft.evaluation.metrics import (
    DEFINITIONS,
    METRICS,
    PerQuery,
    evaluate,
    parse_metric,
)
from retrieval_ft.evaluation.regression import Regression, check_regression, read_measured
from retrieval_ft.evaluation.report import systems_table, systems_text, verdict_line
from retrieval_ft.evaluation.seeds import (
    OverSeeds,
    average,
    seed_document,
    seeds_text,
    summarise_runs,
)
from retrieval_ft.evaluation.slices import MINIMUM, Slice, slice_rows, slices_of
from retrieval_ft.evaluation.stats import Difference, holm, paired_test, smallest_detectable
from retrieval_ft.evaluation.trec import (
    check_run,
    read_qrels,
    read_trec_run,
    write_qrels,
    write_trec_run,
)

__all__ = [
    "DEFINITIONS",
    "METRICS",
    "MINIMUM",
    "Advice",
    "Difference",
    "Latency",
    "Outcome",
    "OverSeeds",
    "PerQuery",
    "Regression",
    "Slice",
    "Thresholds",
    "Verdict",
    "advice_rows",
    "advice_text",
    "advise",
    "assemble",
    "average",
    "check_regression",
    "check_run",
    "compare",
    "decide",
    "difference_rows",
    "document_groups",
    "evaluate",
    "facts_of",
    "general_deltas",
    "holm",
    "paired_latency",
    "paired_test",
    "parse_metric",
    "percentiles",
    "read_inputs",
    "read_measured",
    "read_qrels",
    "read_trec_run",
    "report_markdown",
    "seed_document",
    "seeds_text",
    "slice_rows",
    "slices_of",
    "smallest_detectable",
    "summarise_runs",
    "systems_table",
    "systems_text",
    "verdict_document",
    "verdict_line",
    "write_qrels",
    "write_trec_run",
]
