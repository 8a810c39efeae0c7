"""The charts of what was measured on test: curves, differences, gains by query, separation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_ft.evaluation.html.blocks import Chart, Key, Table, one_line, table
from retrieval_ft.evaluation.html.svg import DOWN, INK, LINES, MUTED, PAPER, UP, draw, looks
from retrieval_ft.evaluation.report import figure, interval, label, signed
from retrieval_ft.evaluation.stats import ALPHA

NUMBERS = "The numbers of this chart"


def curves_chart(curves: Mapping[str, Any]) -> Chart:
    """Recall at each depth with its band, by system."""
    depths, systems = curves["k"], curves["systems"]
    look = looks(systems)

    def paint(drawing: Any) -> None:
        axes = drawing.add_subplot()
        for name, found in systems.items():
            one = look[name]
            colour = LINES[one.colour]
            axes.fill_between(
                depths, found["low"], found["high"], color=colour, alpha=0.13, linewidth=0
            )
            axes.plot(
                depths,
                found["mean"],
                color=colour,
                linestyle=one.dashes,
                marker=one.marker,
                markersize=4.5,
                linewidth=1.8,
            )
        axes.set_xscale("log")
        axes.set_xticks(depths, [str(k) for k in depths])
        axes.set(xlabel="k (log scale)", ylabel="recall@k")

    last = depths[-1]
    spoken = "; ".join(
        f"{label(name)}: {figure(found['mean'][0])} at {depths[0]}, {figure(found['mean'][-1])} at {last}"
        for name, found in systems.items()
    )
    rows = [
        [label(name)]
        + [
            f"{figure(mean)} [{figure(low)}, {figure(high)}]"
            for mean, low, high in zip(found["mean"], found["low"], found["high"], strict=True)
        ]
        for name, found in systems.items()
    ]
    return Chart(
        "Recall among the first k, by system",
        draw(paint, key="curves", title="Recall at k by system", description=spoken, height=290),
        keys=tuple(
            Key(label(name), one.colour, one.dash, one.marker) for name, one in look.items()
        ),
        tables=(
            table(
                "Recall at k, with its 95% interval",
                ["system", *(f"R@{k}" for k in depths)],
                rows,
                folded=NUMBERS,
            ),
        ),
        note="Bands: 95% percentile bootstrap of each mean over queries. They say how sure a mean is; two "
        "systems whose bands overlap may still differ, which the paired tests tell.",
    )


def forest_chart(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Each difference with its interval, and its test beside it in the table."""
    names = [f"{label(r['system'])} minus {label(r['against'])}, {r['metric']}" for r in rows]

    def paint(drawing: Any) -> None:
        axes = drawing.add_subplot()
        for at, (row, name) in enumerate(zip(rows, names, strict=True)):
            low, high = row["ci"]
            colour = UP if low > 0 else DOWN if high < 0 else MUTED
            axes.plot([low, high], [at, at], color=colour, linewidth=2.2, solid_capstyle="round")
            sure = is_sure(row)
            axes.plot(
                [row["delta"]],
                [at],
                marker="D" if sure else "o",
                color=colour,
                markerfacecolor=colour if sure else PAPER,
                markersize=7,
                markeredgewidth=1.6,
            )
            axes.text(
                0,
                at - 0.28,
                one_line(name),
                transform=axes.get_yaxis_transform(),
                va="bottom",
                fontsize=10.5,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
            )
            axes.text(
                1,
                at - 0.28,
                signed(row["delta"]),
                transform=axes.get_yaxis_transform(),
                va="bottom",
                ha="right",
                fontsize=10.5,
            )
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_ylim(len(rows) - 0.5, -0.95)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
        axes.set_xlabel("mean difference per query, with its 95% interval")

    spoken = "; ".join(
        f"{name}: {signed(row['delta'])}, interval {interval(row['ci'])}"
        for name, row in zip(names, rows, strict=True)
    )
    return Chart(
        "Differences between systems, with their 95% intervals",
        draw(
            paint,
            key="forest",
            title="Differences between systems",
            description=spoken,
            height=60 + 40 * len(rows),
        ),
        keys=(
            Key("gain: the interval lies above zero", "up"),
            Key("loss: it lies below", "down"),
            Key("it reaches zero", "muted"),
        ),
        note=f"A filled diamond: p below {ALPHA:g} after Holm over all rows; a hollow circle: not.",
    )


def is_sure(row: Mapping[str, Any]) -> bool:
    """Whether a difference is more than luck: p after Holm below `ALPHA`."""
    p = row.get("p_holm")
    return p is not None and p < ALPHA


def delta_chart(found: Mapping[str, Any], *, number: int) -> Chart:
    """The difference of every query, sorted: wins first."""
    values = np.asarray(found["values"], np.float64)
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    ties = len(values) - wins - losses
    name = f"{label(found['system'])} minus {label(found['against'])}"

    def paint(drawing: Any) -> None:
        axes = drawing.add_subplot()
        edges = np.arange(len(values) + 1)
        for part, colour in ((np.maximum(values, 0), UP), (np.minimum(values, 0), DOWN)):
            starts = np.flatnonzero(np.diff(part, prepend=np.nan) != 0)
            axes.stairs(
                part[starts],
                np.append(edges[starts], len(values)),
                baseline=0,
                fill=True,
                color=colour,
                linewidth=0,
            )
        axes.axhline(0, color=INK, linewidth=1)
        axes.set_xlim(0, max(len(values), 1))
        axes.set(xlabel="queries, sorted by difference", ylabel=f"Δ {found['metric']}")

    text = f"{wins:,} wins, {ties:,} ties, {losses:,} losses"
    return Chart(
        f"{name}, {found['metric']}: {text}",
        draw(
            paint,
            key=f"delta{number}",
            title=f"{name}: difference in {found['metric']} of every query, sorted",
            description=f"{text}; mean {signed(float(values.mean()) if len(values) else None)}",
            height=190,
        ),
        tables=(_delta_table(values, name),),
    )


def _delta_table(values: Any, name: str) -> Table:
    """Queries by the size of their difference, in steps of a tenth; ties apart."""
    tenths = range(10)
    bands = [
        *((f"above +{a / 10:g} to +{(a + 1) / 10:g}", _within(values, a)) for a in tenths[::-1]),
        ("0 (tie)", values == 0),
        *((f"below -{a / 10:g} to -{(a + 1) / 10:g}", _within(-values, a)) for a in tenths),
    ]
    rows = [[text, f"{int(where.sum()):,}"] for text, where in bands if where.any()]
    return table(
        f"{name}: queries by size of the difference",
        ["difference", "queries"],
        rows,
        folded=NUMBERS,
    )


def _within(values: Any, above: int) -> Any:
    """Values above so many tenths and up to the next, which belongs to it; above 0 means truly so."""
    tenths = np.round(values * 10, 9)
    return (tenths > above) & (tenths <= above + 1) if above else (values > 0) & (tenths <= 1)


def separation_chart(sides: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Scores of relevant and of other passages, one panel a side on the same axis."""

    def paint(drawing: Any) -> None:
        panels = drawing.subplots(len(sides), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, found) in zip(panels, sides.items(), strict=True):
            for kind, colour in (("negative", LINES[0]), ("positive", UP)):
                counts = np.asarray(found[kind], np.float64)
                share = counts / max(counts.sum(), 1.0)
                axes.stairs(share, found["edges"], fill=True, color=colour, alpha=0.22, linewidth=0)
                style = "-" if kind == "positive" else (0, (2, 1.2))
                axes.stairs(share, found["edges"], color=colour, linewidth=1.6, linestyle=style)
            axes.set_title(_side_title(name, found), loc="left", fontsize=11)
            axes.set_ylabel("share")
        panels[-1].set_xlabel("score")

    first = next(iter(sides.values()))
    header = ["score from", "to"]
    rows = [
        [f"{a:.3f}", f"{b:.3f}"] for a, b in zip(first["edges"], first["edges"][1:], strict=False)
    ]
    for name, found in sides.items():
        header += [f"{one_line(name)}, relevant", f"{one_line(name)}, not"]
        for row, positive, negative in zip(rows, found["positive"], found["negative"], strict=True):
            row += [f"{positive:,}", f"{negative:,}"]
    return Chart(
        "Scores of relevant and of other passages",
        draw(
            paint,
            key="separation",
            title="Scores of relevant and of other passages",
            description="; ".join(_side_title(name, found) for name, found in sides.items()),
            height=70 + 125 * len(sides),
        ),
        keys=(Key("relevant passages", "up"), Key("other passages", 0, "2 1.2")),
        tables=(table("Passages by score", header, rows, folded=NUMBERS),),
        note="The others are BM25's first ten that nobody judged relevant, the same for each model. AUC is the "
        "chance that a relevant passage scores above another one, ties counted half. Scores "
        "are compared across queries: this tells whether one threshold can serve all of them.",
    )


def _side_title(name: str, found: Mapping[str, Any]) -> str:
    auc = found.get("auc")
    return f"{one_line(name, 40)}: AUC {figure(auc)}"
