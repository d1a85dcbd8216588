"""What the build makes: formulas, examples, figures, tables, the feed."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import markdown
import pytest
from pages import PAGES, ROOT
from site_build.catalogue import Catalogue
from site_build.components import api, component_page, component_table
from site_build.docstrings import DocstringExtension
from site_build.family_pages import families_page, family_page
from site_build.feed import feed
from site_build.figure import differences_figure, ticks
from site_build.grouped import ungroup
from site_build.html_tables import label_cells, raw_tables
from site_build.numbers import numbers
from site_build.paper_pages import paper_page
from site_build.tables import papers_page
from site_build.terms import explained
from site_build.tex import TexError, to_mathml
from site_build.text import markdown as shown
from site_build.text import plain
from site_build.verdicts import evidence_page

from repertoire import losses, papers, registry
from repertoire.claims import Evidence, Freshness, entries

ATOM = "{http://www.w3.org/2005/Atom}"


def evidence(slug="supcon", **changes):
    fields = {
        "slug": slug, "budget": "small", "verdict": "holds", "statement": "It is better.", "metric": "test accuracy",
        "arms": ["SupCon", "cross-entropy"], "data": "digits", "tier": "toy", "threshold": 0.0,
        "higher_is_better": True, "seeds": [0, 1, 2], "values": [[0.9, 0.88], [0.92, 0.89], [0.91, 0.9]],
        "mean": 0.02, "interval": (-0.0048, 0.0448),
        "extra": {"a <b>": [1.0, 2.0, 3.0]},
        "seconds": 12.0, "versions": {"torch": "2.6"}, "commit": "0123456789abcdef", "machine": "a <machine>",
        "measured": "2026-03-01T12:00:00+02:00",
    }  # fmt: skip
    return Evidence(**(fields | changes))


def catalogue(*found):
    return Catalogue(papers.load(), {item.slug: item for item in found}, {}, {})


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"x^2", "<msup><mi>x</mi><mn>2</mn></msup>"),
        (r"x_i^2", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"),
        (r"\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
        (r"a < b", "<mo>&lt;</mo>"),
        (r"\mathbb{E}", "<mi>𝔼</mi>"),
        (r"\mathcal{L}", "<mi>ℒ</mi>"),
        (r"\mathrm{softmax}(f)", '<mi mathvariant="normal">softmax</mi>'),
        (r"\sqrt n", "<msqrt><mi>n</mi></msqrt>"),
        (r"x'", "<msup><mi>x</mi><mo>′</mo></msup>"),
    ],
)
def test_formula(tex, expected):
    assert expected in to_mathml(tex)
    ElementTree.fromstring(to_mathml(tex))


def test_limits_stand_below_only_in_display():
    assert "<munder>" in to_mathml(r"\sum_i x_i", display=True)
    assert "<munder>" not in to_mathml(r"\sum_i x_i")
    named = to_mathml(r"\operatorname*{arg\,max}_{x} f", display=True)
    assert '<munder><mi mathvariant="normal">arg\u2009max</mi>' in named
    assert "<munder>" not in to_mathml(r"\operatorname{mean}_x f", display=True)


@pytest.mark.parametrize(
    "tex", [r"\unknowncommand x", r"{x", r"x}", r"\left( x", r"\frac{1}", r"\begin{nothing}x\end{nothing}"]
)
def test_a_formula_that_cannot_be_set_is_an_error(tex):
    with pytest.raises(TexError, match="formula"):
        to_mathml(tex)


def test_every_formula_of_the_package_can_be_set():
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found += re.findall(r":math:`([^`]+)`", text)
        for indent, first, rest in re.findall(r"^( *)\.\. math::[ \t]*(.*)\n((?:\1 +.*\n)*)", text, re.MULTILINE):
            del indent
            found.append(f"{first} {rest}")
    assert len(found) > 15
    for tex in found:
        ElementTree.fromstring(to_mathml(tex, display=True))


def render(text):
    return markdown.markdown(text, extensions=["fenced_code", "tables", DocstringExtension()])


def test_docstring_idioms():
    page = render(
        "Loss:\n\n.. math::\n    a = b +\n    c\n\nwith :math:`x_i` by :func:`repertoire.ops.knn` "
        "and :func:`torch.exp`.\n\n"
        ">>> 1 + 1  # doctest: +SKIP\n2\n\nend"
    )
    assert '<div class="formula"><math display="block" alttext="a = b + c">' in page
    assert page.count("<math") == 2
    assert "<code>torch.exp</code>" in page
    assert "[<code>knn</code>][repertoire.ops.knn]" in page
    assert "<blockquote>" not in page
    assert "doctest" not in page
    assert "<p>end</p>" in page


def test_a_formula_in_fenced_code_stays():
    assert "<math" not in render("```\n:math:`x`\n.. math:: y\n```")


def test_unknown_command_is_a_warning(caplog):
    assert "<code>\\nonsense</code>" in render(r":math:`\nonsense`")
    assert "nonsense" in caplog.text


def test_grouped_names():
    text = (
        "X.\n\n    Args:\n        a, b: both of\n            them.\n        c: one.\n\n    Raises:\n        A, B: kept."
    )
    assert "        a: both of\n            them.\n        b: both of\n            them.\n        c: one." in ungroup(
        text
    )
    assert "A, B: kept." in ungroup(text)


def test_text_is_inert():
    assert shown("<b>*x*</b> `y` [z]") == r"&lt;b&gt;\*x\*&lt;/b&gt; \`y\` \[z\]"
    assert shown(r"$\mathcal{B}$-Coder") == r":math:`\mathcal{B}`-Coder"
    assert plain(r"$\mathcal{B}$-Coder") == "B-Coder"


def test_ticks_are_round_and_inside():
    assert ticks(-0.5, 2.2) == [-0.5, 0.0, 0.5, 1.0, 1.5, 2.0]
    assert ticks(0.0101, 0.0109) == pytest.approx([0.0102, 0.0104, 0.0106, 0.0108])


def test_figure_places_what_was_measured():
    figure = ElementTree.fromstring(differences_figure(evidence()))
    centres = [float(circle.get("cx")) for circle in figure.iter("circle")]
    assert centres[2] < centres[0] < centres[1]
    assert centres[0] - centres[2] == pytest.approx(centres[1] - centres[0], abs=0.2)
    threshold = next(line for line in figure.iter("line") if line.get("class") == "threshold")
    whole = next(line for line in figure.iter("line") if line.get("class") == "interval")
    assert float(whole.get("x1")) < float(threshold.get("x1")) < centres[2] < float(whole.get("x2"))
    assert "3 paired differences" in figure.find("svg").get("aria-label")


@pytest.mark.parametrize("differences", [[0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [-5.0, 3.0, 1e-6], [1e-9, 2e-9, 3e-9]])
def test_figure_of_corners_stays_inside(differences):
    low, high = min(differences), max(differences)
    values = [[difference, 0.0] for difference in differences]
    measured = evidence(values=values, mean=sum(differences) / 3, interval=(low, high))
    figure = ElementTree.fromstring(differences_figure(measured))
    for element in figure.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(key, 0)) <= 640


def test_paper_page_of_an_open_paper():
    card = next(card for card in papers.load() if card.status == "open")
    page = paper_page(card, catalogue())
    assert page.startswith("---\ntitle: ")
    assert "No component performs this paper yet" in page


def test_paper_page_with_evidence():
    page = paper_page(papers.get("supcon"), catalogue(evidence()))
    assert "<svg" in page
    assert "| seed 1 | 0.9200 | 0.8900 | +0.0300 |" in page
    assert "a &lt;b&gt;" in page
    assert "<machine>" not in page


def test_abbreviations_of_metrics_are_explained():
    everyday = {"CPU", "CAM", "MLP"}
    for claim in entries():
        short = set(re.findall(r"[A-Z][A-Z@]+[A-Z0-9]|F1|R²|-way", claim.metric)) - everyday
        assert not short or explained(claim.metric), f"{claim.name}: say in site_build/terms.py what {short} is"


def test_terms_are_explained_once_and_only_where_they_stand():
    assert explained("test accuracy") == ""
    assert explained("mean average precision over labels").count("precision-recall") == 1
    page = paper_page(papers.get("supcon"), catalogue(evidence(metric="MAP@R among unseen characters")))
    assert "MAP@R: the mean over queries" in page


def test_paper_page_shows_how_it_was_measured():
    known = {claim.name: claim for claim in entries()}
    page = paper_page(papers.get("simclr"), replace(catalogue(evidence("simclr")), claims=known))
    assert "*How it was measured.* Chen et al." in page
    assert "<summary>The bed</summary>\n\n*In `repertoire.claims.beds.ssl_photographs`:* Photographs" in page
    assert "<code>repertoire.claims.ssl.simclr</code></summary>\n\n```python\n" in page


def test_page_of_a_survey_says_whose_experiment_it_is():
    survey = replace(papers.get("ncd-survey"), kind="survey")
    assert "an idea that it describes" in paper_page(survey, catalogue())
    assert "an idea that it describes" not in paper_page(replace(survey, kind="method"), catalogue())


def test_paper_page_names_the_components():
    card = replace(papers.get("supcon"), components=("repertoire.losses.SupCon",))
    page = paper_page(card, catalogue())
    assert "[`SupCon`][repertoire.losses.SupCon]" in page
    assert "from repertoire.losses import SupCon" in page


def test_paper_page_says_who_wrote_it_and_where_it_is():
    assert "Khosla et al., 2020" in paper_page(papers.get("supcon"), catalogue())
    assert "scholar?q=%22Supervised+Contrastive+Learning%22" in paper_page(papers.get("supcon"), catalogue())
    page = paper_page(replace(papers.get("supcon"), url="https://example.org/a?b&c"), catalogue())
    assert '<a href="https://example.org/a?b&amp;c">the paper</a>' in page


def test_component_page_has_command_options_and_reference():
    page = component_page(registry.get("losses", "supcon"), catalogue())
    assert "repertoire train photos/ --loss supcon" in page
    assert "| `temperature` | `0.1` |" in page
    assert "::: repertoire.losses.SupCon\n" in page
    assert "::: repertoire.losses.supcon_loss\n" in page
    assert '<a href="../../families/loss-metric.html">' in page
    assert "Khosla et al., 2020" in page


def test_every_public_name_of_a_room_is_documented_once():
    """On the page of a component, or on that of its kind."""
    pages = [component_page(entry, catalogue()) for entry in registry.entries("losses")]
    own = [name for page in pages for name in re.findall(r"::: repertoire\.losses\.(\w+)", page)]
    others = re.findall(r"^        - (\w+)$", api("repertoire.losses"), re.MULTILINE)
    assert sorted(own + others) == sorted(losses.__all__)
    with pytest.raises(KeyError):
        api("repertoire.nothing")


def test_table_of_a_kind_links_to_the_pages():
    assert "| [`supcon`](losses/supcon.md) | " in component_table("losses")


def test_family_pages():
    page = family_page(papers.family("long-tail"), catalogue())
    assert "| [`ldam`](../components/losses/ldam.md) | loss | " in page
    assert page.index("papers/sbcl.md") < page.index("papers/rcal.md")
    assert "Nothing yet" in family_page(papers.family("federated"), catalogue())
    assert families_page(catalogue()).count("\n| [") == len(papers.families())


def test_a_table_glued_to_a_paragraph_is_found():
    glued = "| a | b |\n| --- | --- |\n| 1 | 2 |\n\nA sentence. | 3 | `4` |\n| 5 | 6 |\n"
    assert len(raw_tables(render(glued))) == 1
    fine = "| a | b |\n| --- | --- |\n| 1 | `x | y` |\n\nThe chance p(a | b), and `| 3 | 4 |`.\n"
    assert raw_tables(render(fine)) == []


def test_no_page_shows_a_raw_table():
    for page in PAGES:
        assert raw_tables(render(page.read_text(encoding="utf-8"))) == [], page


def test_cells_know_their_columns():
    page = label_cells(render("| a `b` | c < d |\n| --- | --: |\n| 1 | 2 |\n"))
    assert '<td data-label="a b">1</td>' in page
    assert '<td data-label="c &lt; d" style="text-align: right;">2</td>' in page
    assert label_cells('<table class="x"><tr><th>a</th></tr><tr><td>1</td></tr></table>').count("data-label") == 0


class Counter(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows = []
        self.options = []

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append(dict(attributes))
        if tag == "option":
            self.options.append(dict(attributes)["value"])


def test_table_holds_every_paper_without_a_script():
    page = papers_page(catalogue())
    table = Counter()
    table.feed(page)
    rows = [row for row in table.rows if "data-family" in row]
    assert len(rows) == len(papers.load())
    assert {row["data-family"] for row in rows} | {row["data-status"] for row in rows} <= set(table.options)
    assert not any("hidden" in row for row in rows)
    script = (ROOT / "docs" / "assets" / "papers.js").read_text()
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(", script), "it has to work from the disk"


def test_evidence_table():
    page = evidence_page(catalogue(evidence(verdict="does not hold")))
    assert 'data-verdict="does not hold" data-tier="toy"' in page
    assert "-0.0048 to +0.0448" in page
    assert "1 does not hold" in page


def test_evidence_of_less_is_better_is_in_favour_of_the_method():
    values = [[0.5, 0.7], [0.5, 0.8]]
    found = evidence(higher_is_better=False, values=values, seeds=[0, 1], mean=0.25, interval=(0.1, 0.4))
    for page in (evidence_page(catalogue(found)), paper_page(papers.get("supcon"), catalogue(found))):
        assert "+0.25" in page
        assert "+0.1 to +0.4" in page
        assert "(less is better)" in page


def test_a_page_says_what_its_interval_allows_for_and_what_survives():
    alone = paper_page(papers.get("supcon"), catalogue(evidence()))
    assert "Nadeau" not in alone
    assert "paired *t* test" in alone
    drawn = paper_page(papers.get("supcon"), catalogue(evidence(units=[[0.1, 0.2]] * 3)))
    assert "bootstrap of seeds" in drawn
    assert "*t* test" not in drawn
    assert "Nadeau" in paper_page(papers.get("supcon"), catalogue(evidence(overlap=0.25)))
    sure, unsure = (paper_page(papers.get("supcon"), catalogue(evidence(verdict="holds", p=p))) for p in (1e-6, 0.5))
    assert "★ It survives the correction" in sure
    assert "it does not survive the correction" in unsure


def test_a_page_shows_the_trivial_answer_of_each_seed_and_who_is_below_it():
    found = evidence("simclr", trivial=[0.89, 0.9, 0.91])
    known = replace(catalogue(found), claims={"simclr": next(claim for claim in entries() if claim.name == "simclr")})
    page = paper_page(papers.get("simclr"), known)
    assert "| seed 1 | 0.9200 | 0.8900 | +0.0300 | 0.9000 |" in page
    assert "Worse than that: cross-entropy." in page
    assert "trivial answer |" not in paper_page(papers.get("simclr"), catalogue(evidence("simclr")))


def test_a_page_speaks_of_further_figures_and_of_what_was_left_out():
    known = replace(catalogue(evidence("e2mc")), claims={claim.name: claim for claim in entries()})
    page = paper_page(papers.get("e2mc"), known).split("<summary>The code")[0]
    assert "The list of further figures has the effective rank" in page
    assert "`extra`" not in page
    assert "**Left out:** the paper's own data and sizes" in page
    assert "**Left out" not in paper_page(papers.get("e2mc"), catalogue(evidence("e2mc", tier="paper")))


def test_the_head_of_a_page_says_what_came_of_its_other_checks():
    central, beside = evidence(), evidence(part="beside", verdict="undecided")
    known = replace(catalogue(central), evidence={central.name: central, beside.name: beside})
    assert "One further check: undecided." in paper_page(papers.get("supcon"), known)
    assert " further check" not in paper_page(papers.get("supcon"), catalogue(central)).split("What was measured")[0]


def test_stale_evidence_says_what_has_changed():
    known = replace(catalogue(evidence()), freshness={"supcon": Freshness("stale", ("losses/_supcon.py: SupCon",))})
    assert "losses/\\_supcon.py: SupCon" in paper_page(papers.get("supcon"), known)
    assert "(stale)" in evidence_page(known)


def set_statuses(monkeypatch, status):
    """Of two papers; all others are open."""
    statuses = dict.fromkeys(("supcon", "sam"), status)
    monkeypatch.setattr(papers.Card, "status", property(lambda card: statuses.get(card.slug, "open")))


def test_feed_is_valid_atom_and_deterministic(monkeypatch):
    set_statuses(monkeypatch, "holds")
    known = catalogue(evidence(), evidence("sam", measured="2026-02-01T00:00:00+00:00"))
    text = feed(known, {})
    assert text == feed(known, {})
    root = ElementTree.fromstring(text)
    for element in (root, *root.iter(f"{ATOM}entry")):
        for child in ("id", "title", "updated"):
            assert element.findtext(f"{ATOM}{child}")
        assert element.findtext(f"{ATOM}id").startswith("tag:repertoire-learn,2026:")
        assert element.find(f"{ATOM}link[@rel='alternate']") is not None
    assert root.find(f"{ATOM}author/{ATOM}name") is not None
    stamps = [entry.findtext(f"{ATOM}updated") for entry in root.iter(f"{ATOM}entry")]
    assert stamps == ["2026-03-01T10:00:00+00:00", "2026-02-01T00:00:00+00:00"]
    assert root.findtext(f"{ATOM}updated") == stamps[0]


def test_feed_dates_what_is_built_by_its_commit(monkeypatch):
    set_statuses(monkeypatch, "built")
    root = ElementTree.fromstring(feed(catalogue(), {"sam": "2026-05-01T00:00:00+00:00"}))
    assert [entry.findtext(f"{ATOM}id")[-10:] for entry in root.iter(f"{ATOM}entry")] == ["papers/sam"]


def test_numbers_are_what_the_benchmark_printed(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs" / "numbers").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        numbers("speed", tmp_path)
    (tmp_path / "benchmarks" / "speed.py").touch()
    assert "Not measured yet" in numbers("speed", tmp_path)
    (tmp_path / "docs" / "numbers" / "speed.md").write_text("| a |\n")
    assert numbers("speed", tmp_path) == "| a |"
