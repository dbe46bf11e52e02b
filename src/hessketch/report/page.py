"""The report of a profile: one HTML page that needs nothing else, neither network nor scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from hessketch.errors import InputError
from hessketch.report import words
from hessketch.report.claimed import VERDICTS, Claimed, PaperClaims, claims_by_paper
from hessketch.report.cost import costs_of
from hessketch.report.made import config_of, made_with
from hessketch.report.pictures import pictures_of
from hessketch.report.studied import studies_of, study_of
from hessketch.report.words import Commands


@dataclass(frozen=True)
class Sources:
    """Where a report's parts lie; a part that is not there is left out. `configfiles` go into the commands."""

    results: Path
    figures: Path
    captions: Path
    benchmarks: Path
    configfiles: Sequence[str] = ()


def build_report(sources: Sources) -> str:
    """The page, of whatever studies there are.

    Raises InputError for a folder without studies, and for a damaged table, figure or caption, naming it.
    """
    names = studies_of(sources.results)
    if not names:
        raise InputError(f"{sources.results}: no study has tables here; give the results of a profile, as results/demo")
    commands = Commands(tuple(sources.configfiles))
    pictures = {name: pictures_of(name, sources.figures / name, sources.captions, commands) for name in names}
    papers = claims_by_paper(sources.results, pictures, commands)
    config = config_of(sources.results)
    return _environment().get_template("report.html.j2").render(
        profile=str(config.get("profile", sources.results.name)),
        folder=sources.results.as_posix(),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        papers=papers,
        tally={verdict: sum(paper.count(verdict) for paper in papers) for verdict in VERDICTS},
        signs=VERDICTS,
        users=_users(papers),
        holders=_holders(papers),
        studies=[study_of(name, sources.results, pictures[name], commands) for name in names],
        costs=costs_of(sources.benchmarks),
        made=made_with(sources.results),
        commands=commands,
    )  # fmt: skip


def _users(papers: Sequence[PaperClaims]) -> dict[str, list[Claimed]]:
    """Claims that look at a figure, by its anchor."""
    users: dict[str, list[Claimed]] = {}
    for claim in (claim for paper in papers for claim in paper.claims):
        for picture in claim.pictures:
            users.setdefault(picture.anchor, []).append(claim)
    return users


def _holders(papers: Sequence[PaperClaims]) -> dict[str, str]:
    """The claim whose drawing holds an image that other claims and its study draw again, by the figure's anchor."""
    claims = [claim for paper in papers for claim in paper.claims if claim.pictures]
    return {claim.pictures[0].anchor: claim.anchor for claim in reversed(claims)}


def _environment() -> Environment:
    loader = PackageLoader("hessketch.report")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters = (words.number, words.size, words.duration, words.title, words.sentence, words.code)
    made.filters |= {function.__name__: function for function in filters}
    return made
