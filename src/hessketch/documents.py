"""The parts of the documents that are made and never typed: blocks between marks, the rule graph, claims in short."""

import re
import textwrap
from collections.abc import Mapping

import pandas as pd

from hessketch.errors import InputError

VERDICTS = ("supported", "contradicted", "not tested at this scale")

_NODE = re.compile(r"^\t(id\d+)\[(\S+?)(?: - .*)?\]$", re.MULTILINE)
_EDGE = re.compile(r"^\t(id\d+) --> (id\d+)$", re.MULTILINE)
_OF_STUDY = re.compile(r"_(tables|figure|notebook)$")
_WIDTH = 128  # of the pages' lines
_UNTOLD = ("config", "all")  # the first is read by every table, the second reads everything


def with_block(text: str, name: str, content: str) -> str:
    """A document with what stands between its marks `<!-- NAME -->` and `<!-- /NAME -->` replaced; nothing by "".

    Raises InputError unless both marks are there once, each on a line of its own.
    """
    pattern = re.compile(rf"^<!-- {name} -->$.*?^<!-- /{name} -->$", re.MULTILINE | re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise InputError(f"marks <!-- {name} --> and <!-- /{name} -->: allowed: each once, on a line of its own")
    lines = [f"<!-- {name} -->", *filter(None, [content.strip()]), f"<!-- /{name} -->"]
    return pattern.sub(lambda _: "\n".join(lines), text)


def rule_graph(dag: str) -> str:
    """Which stages read what, as a Mermaid block, from what `snakemake --dag mermaid-js` prints.

    Jobs of one rule are one node; so are the trainings of all studies that keep weights, and a study's tables, figures
    and notebook. An arrow that longer ways already tell is left out. Raises InputError for a text without jobs.
    """
    rules = {node: _stage(rule) for node, rule in _NODE.findall(dag)}
    if not rules:
        raise InputError("no jobs in the graph; give what `snakemake --dag mermaid-js` prints")
    edges = {(rules[first], rules[second]) for first, second in _EDGE.findall(dag)}
    edges = {(a, b) for a, b in edges if a != b and not {a, b} & set(_UNTOLD)}
    readers: dict[str, set[str]] = {}
    for first, second in sorted(edges):
        readers.setdefault(first, set()).add(second)
    told = [(a, b) for a, b in sorted(edges) if not any(_leads(c, b, readers) for c in readers[a] - {b})]
    studies = sorted({_stage(rule) for _, rule in _NODE.findall(dag) if rule.endswith("_figure")})
    lines = [f"    {a} --> {b}" for a, b in told] + [f"    {study}([{study}])" for study in studies]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def _stage(rule: str) -> str:
    """The node that a rule's jobs belong to."""
    return "trajectories" if rule.startswith("trajectories_") else _OF_STUDY.sub("", rule)


def _leads(first: str, last: str, readers: Mapping[str, set[str]]) -> bool:
    """Whether some way of arrows leads from one node to another."""
    return last in readers.get(first, ()) or any(_leads(node, last, readers) for node in readers.get(first, ()))


def claims_in_short(claims: Mapping[str, pd.DataFrame], papers: Mapping[str, str]) -> str:
    """A Markdown table: of each paper how many claims each profile supports, contradicts and cannot test.

    `claims` maps profiles to their tables of claims (columns `paper`, `verdict`), `papers` keys of papers to what they
    are called.
    """
    heads = "".join(f" {profile} |" for profile in claims)
    lines = [f"| supported / contradicted / not tested |{heads}", "| --- |" + " --- |" * len(claims)]
    for key, title in papers.items():
        counts = [table.loc[table["paper"] == key, "verdict"].value_counts() for table in claims.values()]
        cells = (" / ".join(str(count.get(verdict, 0)) for verdict in VERDICTS) for count in counts)
        lines.append(f"| {title} |" + "".join(f" {cell} |" for cell in cells))
    return "\n".join(lines)


def verdicts_of_study(claims: pd.DataFrame, study: str) -> str:
    """A Markdown list for the page of a study: its claims by verdict, each a link into docs/claims.md.

    `claims` has columns `claim`, `study`, `verdict`. Raises InputError for a study without claims.
    """
    own = claims[claims["study"] == study]
    if own.empty:
        raise InputError(f"study {study}: no claims; allowed: {', '.join(dict.fromkeys(claims['study']))}")
    items = []
    for verdict in VERDICTS:
        names = own.loc[own["verdict"] == verdict, "claim"]
        links = ", ".join(f"[{name.replace('_', ' ')}](../claims.md#{name})" for name in names)
        items += [f"- {verdict}: {links}"] if links else []
    wrapped = (textwrap.fill(item, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for item in items)
    return "\n".join(wrapped)
