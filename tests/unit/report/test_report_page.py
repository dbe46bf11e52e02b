import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import escape
from synthetic_results import DATASET, PROFILE, make_results

import hessketch.report
from hessketch.errors import InputError
from hessketch.records import read_table, write_table
from hessketch.report.cost import costs_of
from hessketch.report.page import build_report

STYLE = Path(hessketch.report.__file__).parent / "templates/report.css"


class Outline(HTMLParser):
    """Tags with their attributes, in the order of the page."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def outline(reported):
    return Outline(reported.page)


def test_every_name_in_the_page_is_escaped(reported, outline):
    assert PROFILE not in reported.page and escape(PROFILE) in reported.page
    assert DATASET not in reported.page and reported.page.count("onerror") == reported.page.count(
        "&lt;img src=x onerror"
    )
    assert not outline.of("script") and not [a for _, a in outline.tags for name in a if name.startswith("on")]
    assert "&lt;b&gt;way&lt;/b&gt;" in reported.page and "one &lt;fast&gt; chip" in reported.page
    assert "The network is &lt;too&gt; small." in reported.page and "&lt;i&gt;mlp&lt;/i&gt;" in reported.page


def test_headings_descend_by_one_identifiers_are_unique_and_links_lead_somewhere(outline):
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    identifiers = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    inner = {a["href"][1:] for tag, a in outline.tags if tag in ("a", "use") and a.get("href", "").startswith("#")}
    assert inner and inner <= set(identifiers)
    pointed = {name for _, a in outline.tags for name in a.get("aria-labelledby", "").split()}
    assert pointed and pointed <= set(identifiers)


def test_nothing_is_loaded_from_elsewhere(outline):
    assert not [a for tag, a in outline.tags if tag in ("script", "link", "iframe", "object", "video")]
    assert outline.of("img") and all(a["src"].startswith("data:image/webp") for a in outline.of("img"))
    assert all(a["href"].startswith(("data:", "#")) for tag in ("image", "use") for a in outline.of(tag))
    assert "url(" not in STYLE.read_text() and "@import" not in STYLE.read_text()


def test_claims_are_counted_by_verdict_and_each_has_its_criterion_measure_and_reason(reported):
    page = reported.page
    assert "3 claims of 2 papers" in page
    tally = re.search(r'<ul class="tally">(.*?)</ul>', page, re.S)[1]
    assert re.findall(r"</span>&nbsp;<b>(\d)</b> ([\w ]+)<", tally) == [
        ("1", "supported"), ("1", "contradicted"), ("1", "not tested at this scale"),
    ]  # fmt: skip
    first = re.search(r'id="claim-low_barrier".*?</article>', page, re.S)[0]
    assert "0.250 ± 0.015 nats" in first and "≤ 0.5 nats" in first and "height &amp; width" in first
    assert f"{escape(DATASET)}, mlp x 0.5, which decides of 2 cases, over 2 seeds" in first
    assert "Half of <code>p</code> is chance." in first and "Bars." in first
    assert re.search(r"<td class=\"number\">0.650 ± 0.050 nats</td>.*?<td>not met</td>", first, re.S)
    assert "results/demo/claims.parquet --configfile &#39;config/my demo.yaml&#39;" in first
    last = re.search(r'id="claim-many_zeros".*?</article>', page, re.S)[0]
    assert "This profile has no figure of it." in last and "<svg" not in last


def test_claims_of_a_paper_of_ones_own_stand_under_its_key(tmp_path):
    sources = make_results(tmp_path)
    path = sources.results / "claims.parquet"
    write_table(read_table(path).replace({"paper": {"papyan2018": "mine2030"}}), path)
    own = re.search(r'<section id="paper-mine2030".*?</section>', build_report(sources), re.S)[0]
    assert "<p>mine2030.</p>" in own and "<cite></cite>" not in own and "many_zeros" in own


def test_an_image_that_claims_look_at_is_in_the_page_once_and_its_figure_names_them(reported, outline):
    assert len(outline.of("image")) == 1 and len(outline.of("use")) == 2 and len(outline.of("img")) == 2
    assert reported.page.count("data:image/webp") == 3
    assert reported.page.index("<image") < reported.page.index("<use")
    figure = re.search(r'<figure id="figure-basins-digits-mlp-none-w0.5-barriers">.*?</figure>', reported.page, re.S)[0]
    assert "#claim-low_barrier" in figure and "#claim-short_way" in figure
    open_ones = re.findall(r'<details class="figures" open>\s*<summary>([^<]+)', reported.page)
    assert open_ones == ["Barriers: digits-mlp-none-w0.5"]


def test_tables_have_size_place_digest_and_command_and_the_first_table_is_whole(reported):
    page = reported.page
    assert "all: 1\u202f000 rows, 2 columns" in page and "runs: 2 rows, 10 columns" in page
    assert re.search(r"results/demo/basins/all.parquet</code>, SHA-256 <code>[0-9a-f]{16}</code>, as recorded", page)
    table = re.search(r"<details open>\s*<summary>Table 1:.*?</details>", page, re.S)[0]
    assert "<td>digits</td>" in table
    assert re.search(r'<th scope="row">test_accuracy</th><td>number</td><td>0.1235</td><td>0.1235</td>', page)
    assert re.search(r"snakemake --cores all \S+figures/demo/basins/\S+/line.png --configfile", page)


def test_a_table_that_is_not_as_its_record_says_is_named(tmp_path):
    sources = make_results(tmp_path, claims=False)
    write_table(pd.DataFrame({"rank": [1]}), sources.results / "basins/all.parquet")
    page = build_report(sources)
    assert f"; changed since: {sources.results.as_posix()}/basins/all.parquet" in page
    assert "all: 1 row, 1 column" in page and "changed since it was recorded" in page


def test_results_without_claims_figures_records_or_benchmarks_still_give_a_report(tmp_path):
    sources = make_results(tmp_path, claims=False)
    (sources.results / "runs/record.json").unlink()
    for study in ("basins", "full_spectrum"):
        (sources.results / study / "record.json").unlink()
    page = build_report(replace(sources, figures=tmp_path / "none", benchmarks=tmp_path / "none", configfiles=()))
    assert "No claims have been judged" in page and 'id="claims"' not in page and "#claims" not in page
    assert "There are no benchmark files" in page and "No record in this folder" in page and "<img" not in page


def test_a_folder_without_studies_is_refused(reported, tmp_path):
    with pytest.raises(InputError, match="no study has tables here"):
        build_report(replace(reported.sources, results=tmp_path))


def test_costs_add_up_by_stage(reported):
    trainings, metrics, every = costs_of(reported.sources.benchmarks)
    assert (trainings.stage, trainings.jobs, trainings.seconds, trainings.cpu_seconds) == ("trainings", 2, 110, 98)
    assert trainings.memory == 70 * 2**20 == every.memory
    assert (metrics.stage, metrics.jobs, metrics.seconds) == ("comparisons of metrics", 1, 5)
    assert (every.stage, every.jobs, every.seconds, every.cpu_seconds) == ("all", 3, 115, 102)


def test_the_page_says_what_made_the_results(reported):
    page = reported.page
    assert "<code>abc123</code>, working tree uncommitted changes in some of them" in page
    assert re.search(r"<th scope=\"row\">torch</th><td>2.11</td>", page)
    assert "2 (1 diverged)" in page and "python -m hessketch verify" in page


def luminance(colour):
    levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_stands_out_from_what_is_behind_it(scheme):
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.S)
    assert len(blocks) == 3
    text = blocks[["light", "dark", "print"].index(scheme)]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", text))
    colours = {name: "#" + "".join(2 * c for c in v[1:]) if len(v) == 4 else v for name, v in colours.items()}
    pairs = [(name, back) for name in ("text", "soft", "link") for back in ("page", "panel")]
    pairs += [(name, f"{name}-back") for name in ("supported", "contradicted", "open")]
    for name, back in pairs:
        light, dark = sorted((luminance(colours[name]), luminance(colours[back])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, back)
