"""The charts of what was chosen on dev: the training, the weight of the fusion, the share of the soup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_ft.evaluation.html.blocks import Chart, Key, one_line, table
from retrieval_ft.evaluation.html.charts import NUMBERS
from retrieval_ft.evaluation.html.svg import INK, LINES, Look, draw, looks
from retrieval_ft.evaluation.report import figure, words

_TARGET, _GENERAL = Look(4, "", "^"), Look(2, "4 2", "o")


def training_chart(found: Mapping[str, Any]) -> Chart:
    """The loss by step, and below it what dev said at each look."""
    dev = [row for row in found.get("dev", ()) if len(row) > 1]
    metrics = list(dict.fromkeys(name for row in dev for name in row if name != "step"))

    def paint(drawing: Any) -> None:
        panels = drawing.subplots(2 if metrics else 1, 1, sharex=True, squeeze=False)[:, 0]
        losses = np.asarray(found["loss"], np.float64)  # None, where it was no number, leaves a gap
        panels[0].plot(found["steps"], losses, color=LINES[0], linewidth=1.6)
        panels[0].set_ylabel("loss")
        for at, metric in enumerate(metrics):
            look = _dev_look(at)
            points = [(row["step"], row[metric]) for row in dev if row.get(metric) is not None]
            panels[1].plot(
                *zip(*points, strict=True),
                color=LINES[look.colour],
                linestyle=look.dashes,
                marker=look.marker,
                markersize=5,
                linewidth=1.6,
            )
        if metrics:
            panels[1].set_ylabel("dev")
        panels[-1].set_xlabel("step")

    known = [value for value in found["loss"] if value is not None]
    spoken = [f"loss {known[0]:.3g} to {known[-1]:.3g}"] if known else []
    for metric in metrics:
        best = max((r for r in dev if r.get(metric) is not None), key=lambda r: r[metric])
        spoken.append(f"best dev {metric} {figure(best[metric])} at step {best['step']:g}")
    tables = [
        table(
            "Loss by step",
            ["step", "loss"],
            [
                [f"{step:g}", "-" if loss is None else f"{loss:.4f}"]
                for step, loss in zip(found["steps"], found["loss"], strict=True)
            ],
            folded=NUMBERS,
        )
    ]
    if dev:
        rows = [[f"{row['step']:g}", *(figure(row.get(m)) for m in metrics)] for row in dev]
        tables.append(table("Dev by step", ["step", *metrics], rows, folded="The numbers of dev"))
    return Chart(
        "Loss on the train pairs, and what dev said" if metrics else "Loss on the train pairs",
        draw(
            paint,
            key="training",
            title="Loss and dev by step",
            description="; ".join(spoken),
            height=300 if metrics else 190,
        ),
        keys=(
            Key("loss", 0),
            *(
                Key(f"dev {name}", _dev_look(at).colour, _dev_look(at).dash, _dev_look(at).marker)
                for at, name in enumerate(metrics)
            ),
        ),
        tables=tuple(tables),
    )


def _dev_look(at: int) -> Look:
    return (Look(4, "", "^"), Look(2, "4 2", "o"), Look(5, "1 1.5", "D"))[at % 3]


def fusion_chart(sides: Sequence[Mapping[str, Any]]) -> Chart:
    """What dev says of each weight of the dense side, and of RRF, by side."""
    known = {"base": "base_hybrid", "tuned": "tuned_hybrid"}
    look = list(looks(known.get(found["side"], f"{found['side']} ") for found in sides).values())

    def paint(drawing: Any) -> None:
        axes = drawing.add_subplot()
        for found, one in zip(sides, look, strict=True):
            colour, chosen = LINES[one.colour], found["chosen"]
            axes.plot(
                found["weights"],
                found["values"],
                color=colour,
                linestyle=one.dashes,
                marker=one.marker,
                markersize=3.5,
                linewidth=1.6,
            )
            axes.axhline(found["rrf"], color=colour, linewidth=1.2, linestyle=(0, (1, 2)))
            if chosen["kind"] == "convex":
                weight = chosen["dense_weight"]
                at = min(
                    range(len(found["weights"])), key=lambda i: abs(found["weights"][i] - weight)
                )
                axes.plot(
                    [weight],
                    [found["values"][at]],
                    marker="o",
                    markersize=12,
                    markerfacecolor="none",
                    color=INK,
                    markeredgewidth=1.4,
                )
        axes.set(xlabel="dense weight (0 is BM25 alone)", ylabel="on dev")

    header = ["dense weight", *(one_line(found["side"]) for found in sides)]
    rows = [
        [f"{weight:g}", *(f"{found['values'][i]:.4f}" for found in sides)]
        for i, weight in enumerate(sides[0]["weights"])
    ]
    rows.append(["RRF", *(f"{found['rrf']:.4f}" for found in sides)])
    metrics = ", ".join(dict.fromkeys(str(found["metric"]) for found in sides))
    return Chart(
        f"The weight of the dense side in the hybrid: {metrics}",
        draw(
            paint,
            key="fusion",
            title="Fusion on dev by dense weight",
            description="; ".join(map(_chosen, sides)),
            height=260,
        ),
        keys=tuple(
            Key(f"{found['side']} (dots: its RRF)", one.colour, one.dash, one.marker)
            for found, one in zip(sides, look, strict=True)
        ),
        tables=(table("Fusion on dev", header, rows, folded=NUMBERS),),
        note=f"Chosen (a ring on the chart where it is a weight): {'; '.join(map(_chosen, sides))}.",
    )


def _chosen(found: Mapping[str, Any]) -> str:
    chosen = found["chosen"]
    if chosen["kind"] == "convex":
        return f"{found['side']}: dense weight {chosen['dense_weight']:g}"
    return f"{found['side']}: {words(chosen['kind']).upper()}"


def soup_chart(rows: Sequence[Mapping[str, Any]], *, chosen: float | None) -> Chart:
    """Dev recall of the target and of the general sets by share of tuned weights."""
    ordered = sorted(rows, key=lambda row: float(row["alpha"]))
    lines = {
        name: ([row["alpha"] for row in part], [row[name] for row in part], look)
        for name, look in (("target", _TARGET), ("general", _GENERAL))
        if (part := [row for row in ordered if row.get(name) is not None])
    }

    def paint(drawing: Any) -> None:
        axes = drawing.add_subplot()
        for shares, values, look in lines.values():
            axes.plot(
                shares,
                values,
                color=LINES[look.colour],
                linestyle=look.dashes,
                marker=look.marker,
                markersize=5.5,
                linewidth=1.8,
            )
        if chosen is not None:
            axes.axvline(chosen, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set(xlabel="share of tuned weights (0 is the base)", ylabel="dev recall@10")

    spoken = "; ".join(
        f"{name} {figure(values[0])} at {shares[0]:g}, {figure(values[-1])} at {shares[-1]:g}"
        for name, (shares, values, _) in lines.items()
    )
    marks = [
        [f"{row['alpha']:g}", figure(row["target"]), figure(row.get("general")), mark]
        for row in ordered
        for mark in ["chosen" if row["alpha"] == chosen else ""]
    ]
    header = ["share of tuned weights", "target", "general sets", ""]
    names = {"target": "target", "general": "general sets (mean)"}
    return Chart(
        "The share of tuned weights (soup): dev recall@10",
        draw(
            paint,
            key="soup",
            title="Dev recall@10 by share of tuned weights",
            description=spoken,
            height=250,
        ),
        keys=tuple(
            Key(names[name], look.colour, look.dash, look.marker)
            for name, (_, _, look) in lines.items()
        ),
        tables=(table("Dev recall@10 by share of tuned weights", header, marks, folded=NUMBERS),),
        note="" if chosen is None else f"Dashed: the chosen share, {chosen:g}.",
    )
