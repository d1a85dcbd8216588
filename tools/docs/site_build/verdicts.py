"""Verdicts as the site shows them: the section of a paper's page, and the table of all claims."""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

from repertoire import papers
from repertoire.claims import ALPHA, Claim, Evidence, beds
from site_build.catalogue import Catalogue
from site_build.components import status_badge
from site_build.figure import differences_figure
from site_build.terms import explained
from site_build.text import markdown, plain

__all__ = ["check_section", "evidence_page", "evidence_sections"]

#: Of the table of all claims. On a narrow screen, where a row is a block, the names stand before the cells.
_COLUMNS = ("Claim", "Verdict", "Effect", "Measured on", "Seeds", "CPU time")

#: Modules beside the scenes: helpers and constants, of which there is nothing to tell.
_NO_SCENES = {"digits", "drawn_objects", "learned", "raw"}

_PAGE = """---
title: Evidence
description: Every claim that was measured, with its verdict, and what the verdict is worth.
hide: [toc]
---

# Evidence

A claim runs a paper's method and its rivals on the same data and the same seeds: 5 of them, and 10 and 20 where the
first do not decide. The paired differences decide against a threshold that was written down before the first
measurement; for five claims it was later raised from 0, and none of them holds because of that. Each look takes an
interval of 98.1 %, so that over the looks at 5, 10 and 20 seeds the error is 5 % under normal noise, half to either
side. Where seeds divide one finite set anew, the interval has the correction of Nadeau and Bengio (2003). A positive
effect favours the method, whatever the metric.

A claim **holds**, **does not hold** (the effect is absent, too small or reversed), or is **undecided**: its interval
reaches over the threshold, or its seeds leave open whether the arms have learned anything. Where an arm learned
nothing, or the baseline left no room, there is **no answer**. A verdict is *stale* where the code that it tests has
changed since.

What a verdict is worth depends on what it was measured on. *Drawn* data (shapes, random vectors) and *toy* data (digits
of 8 pixels) show a mechanism; *real, small* data are photographs, letters, sounds, texts and tables that people made;
*paper* is the paper's own. No verdict speaks of more than its data and its sizes.

{sentences}

"""


def check_section(claim: Claim) -> str:
    """What would be measured."""
    arms = ", ".join(markdown(arm) for arm in claim.arms[1:]) or "the tolerance"
    return (
        f"> {markdown(claim.statement)}\n\n{markdown(claim.metric)} of {markdown(claim.arms[0])} against {arms}, on "
        f"{markdown(claim.data)} ({claim.tier}); threshold {claim.threshold:+g}."
    )


def evidence_sections(slug: str, catalogue: Catalogue) -> str:
    """What was measured of a paper: its central claim first, then the others."""
    names = [name for name in catalogue.evidence if name == slug or name.startswith(f"{slug}:")]
    sections = [_section(name, catalogue) for name in sorted(names)]
    reduction = papers.get(slug).reduction
    if reduction:
        sections.append(f"**Left out or replaced:** {markdown(reduction.rstrip('.'))}.")
    elif any(catalogue.evidence[name].tier != "paper" for name in names):
        sections.append("**Left out:** the paper's own data and sizes, and whatever of its claim is not stated above.")
    written = [catalogue.claims[name] for name in names if name in catalogue.claims]
    sections += [*_beds(written), *_code(written)]
    return "\n\n".join(sections)


def _code(claims: list[Claim]) -> list[str]:
    """The files in which the checks of a paper are written, folded up, for whoever doubts what they measure."""
    files = {claim.function.__code__.co_filename: claim for claim in claims}
    return [
        f'<details markdown="1" data-search-exclude><summary>The code of the check, '
        f"<code>{claim.function.__module__}</code></summary>\n\n"
        f"```python\n{Path(file).read_text(encoding='utf-8').rstrip()}\n```\n\n</details>"
        for file, claim in sorted(files.items())
    ]


def _beds(claims: list[Claim]) -> list[str]:
    """What the claims are measured on, in the words of the scenes that they share, folded up."""
    scenes = {module.name for module in pkgutil.iter_modules(beds.__path__) if module.name[0] != "_"} - _NO_SCENES
    found = set()
    for file in {claim.function.__code__.co_filename for claim in claims}:
        for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(beds.__name__):
                names = {alias.name for alias in node.names}
                # What holds rows of any bed is no sign of one.
                found |= set() if names == {"Rows"} else {node.module.rpartition(".")[2], *names} & scenes
    modules = [importlib.import_module(f"{beds.__name__}.{name}") for name in sorted(found)]
    told = [f"*In `{module.__name__}`:* {inspect.getdoc(module) or ''}" for module in modules]
    text = "\n\n".join(part.replace("<", "&lt;") for part in told)
    return [f'<details markdown="1"><summary>The bed</summary>\n\n{text}\n\n</details>'] if text else []


def _told(claim: Claim | None) -> list[str]:
    """What the check says of itself: its set-up, what was tried before, and what is measured beside it."""
    text = inspect.getdoc(claim.function) if claim is not None else None
    return [] if not text else [f"*How it was measured.* {_as_shown(text)}"]


def _as_shown(text: str) -> str:
    """A docstring in the words of the page, on which further figures are a list."""
    text = re.sub(r"(^|[.)]\s+)`extra`", r"\1The list of further figures", text)
    return text.replace("`extra`", "the list of further figures").replace("<", "&lt;")


def _section(name: str, catalogue: Catalogue) -> str:
    evidence, claim = catalogue.evidence[name], catalogue.claims.get(name)
    title = "What was measured" if not evidence.part else f"What was measured: {markdown(evidence.part)}"
    arms = [markdown(arm) for arm in evidence.arms]
    head = "difference" if evidence.kind in ("better", "equivalent") else markdown(evidence.contrast)
    floor = evidence.trivial or []
    heads = [*arms, head, *(["trivial answer"] if floor else [])]
    rows = [f"| | {' | '.join(heads)} |", "| :--- |" + " ---: |" * len(heads)]
    for k, seed in enumerate(evidence.seeds):
        figures = [*(f"{value:.4f}" for value in evidence.values[k]), f"{evidence.differences[k]:+.4f}"]
        figures += [f"{floor[k]:.4f}"] if floor else []
        rows.append(f"| seed {seed} | {' | '.join(figures)} |")
    asked = markdown(claim.asked(evidence.trivial)) if claim is not None else ""
    terms = " ".join(filter(None, (_below(evidence, claim), explained(evidence.metric))))
    extra = "".join(
        f"\n- {markdown(name)}: {', '.join(f'{value:.4f}' for value in numbers)}"
        for name, numbers in evidence.extra.items()
    )
    return "\n\n".join(
        [
            f"## {title}",
            f"> {markdown(evidence.statement)}",
            f"{status_badge(evidence.verdict)} {markdown(evidence.finding)}.",
            *([asked] if asked else []),
            *([terms] if terms else []),
            *_notes(evidence, catalogue),
            differences_figure(evidence),
            *_told(claim),
            '<details markdown="1"><summary>The numbers</summary>',
            "\n".join(rows),
            *([f"Further figures, seed by seed, which decide nothing:\n{extra}"] if extra else []),
            f"Positive differences favour the method; {evidence.asked} was asked for. Budget {evidence.budget}, "
            f"{evidence.measured[:10]}, commit {markdown((evidence.commit or 'unknown')[:12])}, torch "
            f"{markdown(evidence.versions['torch'])}, {markdown(evidence.machine)}; {evidence.seconds / 60:.1f} CPU "
            "minutes in all.",
            "</details>",
        ]
    )


def _below(evidence: Evidence, claim: Claim | None) -> str:
    """Which arms score less than the trivial answer, where only the best has to beat it."""
    if claim is None or claim.learned is None or not evidence.trivial:
        return ""
    sign = 1 if evidence.higher_is_better else -1
    trivial = sum(evidence.trivial) / len(evidence.trivial)
    worse = [arm for arm, mean in zip(evidence.arms, evidence.means, strict=True) if sign * (mean - trivial) < 0]
    return f"Worse than that: {markdown('; '.join(worse))}." if worse else ""


def _notes(evidence: Evidence, catalogue: Catalogue) -> list[str]:
    notes = []
    tested, surviving = catalogue.among_all
    fresh = catalogue.freshness.get(evidence.name)
    if evidence.verdict == "holds" and evidence.name in tested:
        still = "★ It survives" if evidence.name in surviving else "By itself, that is: it does not survive"
        notes.append(
            f"{still} the correction for multiple testing of all {len(tested)} claims that their seeds decide "
            "([evidence](../evidence.md))."
        )
    if evidence.overlap:
        notes.append(
            "Each seed divides the same data anew, so that seeds are not independent: the interval is wider, by the "
            "correction of Nadeau and Bengio (2003), than the spread of the differences alone would make it, with "
            f"{evidence.overlap:.3g} test samples for each training sample."
        )
    elif evidence.units:
        notes.append("The interval is that of a bootstrap of seeds, and of the images within them.")
    elif evidence.span:
        notes.append(
            "The interval is that of a paired *t* test over seeds, which are taken to be independent: it speaks of new "
            "seeds on this data, and not of other data."
        )
    if evidence.verdict == "undecided" and evidence.smallest is not None:
        notes.append(
            f"{len(evidence.seeds)} seeds that spread like these find a true effect that lies {evidence.smallest:.3g} "
            "beyond the threshold in four of five cases."
        )
    if fresh is not None and fresh.state == "stale":
        changed = ", ".join(markdown(place) for place in fresh.changed[:3])
        more = f" and {len(fresh.changed) - 3} more" if len(fresh.changed) > 3 else ""
        notes.append(f'!!! warning "Stale"\n    Changed since this was measured: {changed}{more}.')
    return notes


def evidence_page(catalogue: Catalogue) -> str:
    """Markdown of the table of all claims, measured or not. Without JavaScript it is the whole table."""
    names = sorted({*catalogue.claims, *catalogue.evidence})
    if not names:
        return _PAGE.format(sentences="No claim is written yet.")
    cards = {card.slug: card for card in catalogue.cards}
    tested, surviving = catalogue.among_all
    chance = ALPHA / 2
    silent = any(item.verdict == "no answer" for item in catalogue.evidence.values())
    counts = papers.tally(item.verdict for item in catalogue.evidence.values())
    stale = sum(fresh.state == "stale" for fresh in catalogue.freshness.values())
    sentences = (
        f"Of {len(names)} claims: {counts}; "
        f"{len(names) - len(catalogue.evidence)} not measured, {stale} stale. {len(tested)} were tested by their "
        f"seeds; the others are identities{' or have no answer' if silent else ''}. "
        "If every true effect stood exactly at its threshold, "
        f"{chance * len(tested):.1f} of these ({chance:.1%} each) would hold by chance; {len(surviving)} that hold (★) "
        "survive the correction for multiple testing (Benjamini and Hochberg at 5 %); it asks nothing of verdicts "
        "against a claim."
    )
    rows = "\n".join(_row(name, cards, catalogue, name in surviving) for name in names)
    items, slugs = list(catalogue.evidence.values()), {name.partition(":")[0] for name in names}
    filters = "".join(
        _filter(label, name, values)
        for label, name, values in (
            ("Verdict", "verdict", sorted({item.verdict for item in items})),
            ("Measured on", "tier", [tier for tier in papers.TIERS if any(item.tier == tier for item in items)]),
            ("Family", "family", sorted({cards[slug].family for slug in slugs if slug in cards})),
            ("Kind", "kind", sorted({item.kind for item in items})),
        )
    )
    heads = "".join(f'<th scope="col">{column}</th>' for column in _COLUMNS)
    return (
        _PAGE.format(sentences=sentences)
        + f'<form id="evidence-filters" class="paper-filters" hidden>\n{filters}<button type="reset">Clear</button>\n'
        + "</form>\n"
        + '<div class="wide-table evidence-table"><table id="evidence-table">\n'
        + f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n\n"
        + '<script src="assets/evidence.js"></script>\n\n'
        + "Measure on your own machine with `repertoire claims run SLUG`, where a claim permits it on data of your own "
        + "with `--data`; `repertoire claims table --format csv` gives the whole table.\n"
    )


def _filter(label: str, name: str, values: list[str]) -> str:
    options = "".join(f'<option value="{html.escape(value)}">{html.escape(value)}</option>' for value in values)
    return f'<label>{label}<select name="{name}"><option value="">all</option>{options}</select></label>\n'


def _row(name: str, cards: dict[str, papers.Card], catalogue: Catalogue, survives: bool) -> str:
    slug, _, part = name.partition(":")
    card, claim, evidence = cards.get(slug), catalogue.claims.get(name), catalogue.evidence.get(name)
    known = evidence or claim
    title = (plain(card.title) if card else slug) + (f": {part}" if part else "")
    statement = html.escape(known.statement) if known else ""
    reduction = f"<small>left out or replaced: {html.escape(card.reduction)}</small>" if card and card.reduction else ""
    paper = f'<a href="papers/{slug}.html">{html.escape(title)}</a><small>{statement}</small>{reduction}'
    if evidence is None:
        return f'<tr data-verdict="not measured"><td>{paper}</td><td colspan="5">not measured yet</td></tr>'
    fresh = catalogue.freshness.get(name)
    note = " (stale)" if fresh is not None and fresh.state == "stale" else ""
    interval = f'<small class="interval">({evidence.span})</small>' if evidence.span else ""
    less = "" if evidence.higher_is_better or evidence.kind == "identity" else " (less is better)"
    reason = f"<small>{html.escape(evidence.reason)}</small>" if evidence.reason else ""
    cells = (
        status_badge(evidence.verdict) + (" ★" if survives else "") + note + reason,
        f"{evidence.effect}{interval}<small>{evidence.asked} asked for: {html.escape(evidence.metric)}{less}</small>",
        f"{html.escape(evidence.tier)}<small>{html.escape(evidence.data)}</small>",
        f"{len(evidence.seeds)}<small>budget {evidence.budget}</small>",
        f"{evidence.seconds / 60:.1f} min<small>{evidence.measured[:10]}</small>",
    )
    attributes = {
        "verdict": evidence.verdict,
        "tier": evidence.tier,
        "family": card.family if card else "",
        "kind": evidence.kind,
    }
    data = " ".join(f'data-{key}="{html.escape(value)}"' for key, value in attributes.items())
    labelled = "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in zip(_COLUMNS[1:], cells, strict=True))
    return f"<tr {data}><td>{paper}</td>{labelled}</tr>"
