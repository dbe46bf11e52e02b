"""What README.md and docs/ say is true: links, commands, code, keys, columns, graphs are held against the project."""

import contextlib
import importlib.util
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from hessketch.__main__ import parser as hessketch_parser
from hessketch.claims.catalog import all_claims
from hessketch.config_document import keys_of
from hessketch.config_schema import allowed

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STUDIES = sorted(path.stem for path in (ROOT / "docs/studies").glob("*.md"))
RECORDED = ROOT / "results/reference/fashion_mnist_cpu"
RUN_AS_THEY_STAND = [ROOT / name for name in ("README.md", "docs/own_model.md", "docs/federation.md", "docs/tables.md")]

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def script():
    """workflow/scripts/write_documents.py as a module."""
    spec = importlib.util.spec_from_file_location("write_documents", ROOT / "workflow/scripts/write_documents.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dag(script) -> str:
    with contextlib.chdir(ROOT):
        return script.dag()


def figures_of(dag: str) -> set[str]:
    """Every figure of the demo, as STUDY/FOLDER/FILE.png."""
    found = re.findall(r"\[(\w+)_figure - figure: (\S+) - folder: (\S+)\]", dag)
    return {f"{study}/{folder}/{figure}.png" for study, figure, folder in found}


def blocks(page: Path, language: str) -> list[str]:
    return [found["body"] for found in _FENCE.finditer(page.read_text()) if found["language"] == language]


def commands(page: Path) -> list[str]:
    """Shell commands of a page, from its code blocks and its code spans, without comments; none with an ellipsis."""
    text = page.read_text()
    lines = "".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))
    found = [re.split(r"\s+#|\s+>|\s*&&", line)[0].strip().removeprefix("$ ") for line in [*lines, *spans]]
    return [command for command in found if "..." not in command]


def beginning_with(start: str) -> list[tuple[Path, str]]:
    found = [(page, command) for page in PAGES for command in commands(page) if f"{command} ".startswith(f"{start} ")]
    assert found, f"no page shows a command that begins with {start!r}"
    return found


def test_the_readme_fits_into_two_hundred_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_every_relative_link_and_picture_exists():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text())):
            if not re.match(r"[a-z]+:|#", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{name_of(page)}: {target} does not exist"


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs/README.md").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


def test_every_hessketch_command_is_one_that_the_program_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for page, command in beginning_with("python -m hessketch"):
        words = shlex.split(command)[3:]
        with contextlib.suppress(IndexError):
            assert Path(ROOT, words[words.index("--configfile") + 1]).is_file() if "--configfile" in words else True
        if words and "--help" not in words and not words[0].isupper():
            try:
                hessketch_parser().parse_args(words)
            except SystemExit:
                pytest.fail(f"{name_of(page)}: {command}")


def test_every_benchmark_command_has_flags_that_its_program_names():
    for page, command in beginning_with("python -m"):
        module, *words = shlex.split(command)[2:]
        if module.startswith("benchmarks."):
            program = (ROOT / f"{module.replace('.', '/')}.py").read_text()  # its libraries take seconds to import
            for flag in [word for word in words if word.startswith("--")]:
                assert f'"{flag}"' in program, f"{name_of(page)}: {command}"


def test_every_snakemake_command_names_flags_files_and_targets_that_are_there(dag):
    from snakemake.cli import get_argument_parser

    taken = get_argument_parser()
    rules = set(re.findall(r"^ *rule (\w+):", "".join(p.read_text() for p in ROOT.glob("workflow/rules/*.smk")), re.M))
    targets = rules | {"all"} | {study.partition("/")[0] for study in figures_of(dag)}
    for page, command in beginning_with("snakemake"):
        words = [word for word in shlex.split(command)[1:] if not re.search(r"[A-Z]{3}", word)]
        arguments = taken.parse_args(words)
        for file in [*(arguments.configfile or []), *filter(None, [arguments.workflow_profile])]:
            exists = (ROOT / file).exists() or str(file).startswith("my_")  # what a reader would write
            assert exists, f"{name_of(page)}: {command}: {file} does not exist"
        for target in arguments.targets if "my_" not in command else ():
            known = target.removeprefix("figures/demo/") in figures_of(dag) or target in targets
            assert known, f"{name_of(page)}: {command}: no target {target}"


def test_every_make_target_is_in_the_makefile():
    there = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page, command in beginning_with("make"):
        asked = {word for word in command.split()[1:] if re.fullmatch("[a-z]+", word)}
        assert asked <= there, f"{name_of(page)}: {command}"


def test_every_figure_that_a_page_names_is_one_that_the_demo_makes(dag):
    there = figures_of(dag)
    for page in [ROOT / "README.md", *(ROOT / f"docs/studies/{study}.md" for study in STUDIES)]:
        rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
        for name in re.findall(r"`([\w/-]+\.png)`", "\n".join(rows)):
            pattern = ".*/" + re.sub("[A-Z]{4,}", r"[\\w.+-]+", name)
            assert any(re.fullmatch(pattern, figure) for figure in there), f"{name_of(page)}: no figure {name}"


def test_every_study_of_the_demo_has_a_page(dag):
    assert sorted({figure.partition("/")[0] for figure in figures_of(dag)}) == STUDIES


@pytest.mark.parametrize("study", [study for study in STUDIES if (RECORDED / study).is_dir()])
def test_the_page_of_a_study_describes_each_table_and_column(study):
    page = (ROOT / f"docs/studies/{study}.md").read_text()
    words = set(re.findall(r"`([\w+.]+)`", page + (ROOT / "docs/tables.md").read_text()))
    for path in sorted((RECORDED / study).glob("*.parquet")):
        assert path.stem in re.findall(r"`(\w+)`", page), f"no table {path.stem}"
        for column in pq.read_schema(path).names:
            # Some stand for several: a standard error for its quantity, `above_...` for all that begin so.
            stems = {column, column.removesuffix("_standard_error"), column.removesuffix("_sd")}
            stems |= {f"{column[: place.start() + 1]}..." for place in re.finditer("_", column)}
            stems |= {stem.removesuffix(end) for stem in set(stems) for end in ("_least", "_largest")}
            assert stems & words, f"{path.stem}: no column {column}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "adding"], ids=name_of)
def test_python_code_compiles(page):  # those on adding things are run by tests of their own
    for code in blocks(page, "python"):
        compile(code, name_of(page), "exec")


@pytest.mark.parametrize("page", RUN_AS_THEY_STAND, ids=name_of)
def test_python_code_runs_as_it_stands(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec("\n".join(blocks(page, "python")), {})


def test_the_configuration_page_is_what_the_schema_says(script, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert (ROOT / "docs/configuration.md").read_text() == script.configuration(), "run: make docs"


def test_the_configuration_page_has_every_key_with_its_meaning_and_its_values():
    schema = yaml.safe_load((ROOT / "config/schema.yaml").read_text())
    page = (ROOT / "docs/configuration.md").read_text()
    keys = list(keys_of(schema))
    assert {"spectrum.method", "datasets.NAME.epochs", "federation.networks[].width"} <= {key.path for key in keys}
    for key in keys:
        below = key.parts[-1] if len(key.parts) == 1 else ".".join(key.parts[1:])
        assert f"| `{below}` |" in page or f"## {below}\n" in page, key.path
        assert key.schema.get("description", "").strip().replace("|", "\\|") in page, key.path
    assert allowed({"enum": ["fast", "paper"]}) in page


def test_pages_tell_the_verdicts_of_the_recorded_tables_and_the_readme_has_some(script, monkeypatch):
    monkeypatch.chdir(ROOT)
    old = "run: snakemake --cores 1 reference_claims && make docs"
    assert (RECORDED / "claims.parquet").is_file(), old
    claims = pq.read_table(RECORDED / "claims.parquet", columns=["claim", "verdict"]).to_pydict()
    assert claims["claim"] == [claim.name for claim in all_claims()], old
    # What a demo run last in this folder says of README.md is for `make docs`, not for a test.
    monkeypatch.setitem(script.CLAIMS, "demo", Path("nowhere"))
    made = script.claims()
    assert script.without_claims(made) == []
    assert [page for page, text in made.items() if page.read_text() != text] == [], old


def test_the_rule_graph_is_the_one_that_snakemake_draws(dag, script):
    text = (ROOT / "docs/architecture.md").read_text()
    assert script.rule_graph(dag) in text, "run: make docs"
