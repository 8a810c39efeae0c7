"""Queries that a language model writes for passages, through any OpenAI-compatible endpoint."""

from retrieval_ft.mining.synthetic.plan import SyntheticPlan, plan, plan_text
from retrieval_ft.mining.synthetic.write import SyntheticAccount, SyntheticResult, write_queries

__all__ = [
    "SyntheticAccount",
    "SyntheticPlan",
    "SyntheticResult",
    "plan",
    "plan_text",
    "write_queries",
]
