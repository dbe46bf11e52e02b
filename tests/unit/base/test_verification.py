"""Nothing about results can be changed, lost, swapped or made from something else without being told."""

import json
import shutil
import zipfile
from pathlib import Path

import pandas
import pytest
import torch

from hessketch import ledger, recorded
from hessketch.__main__ import main
from hessketch.archives import pack
from hessketch.errors import InputError
from hessketch.records import copy, read_record, read_table, read_tensors, write_record, write_table, write_tensors
from hessketch.verification import CHANGED, MISSING, NOT_RECORDED, OUTDATED, verify

RESULTS = Path("results/demo")
MODEL, RUN = RESULTS / "runs/a/model.safetensors", RESULTS / "runs/a/record.json"
CHOSEN, SELECTION = RESULTS / "selected/a/model.safetensors", RESULTS / "selected/a/selection.json"
SPECTRUM, MEASURED = RESULTS / "spectra/a/eigenvalues.parquet", RESULTS / "spectra/a/record.json"
TABLE, STUDY = RESULTS / "study/summary.parquet", RESULTS / "study/record.json"


def train(value: float) -> None:
    ledger.begin()
    read_tensors("resources/digits.safetensors")
    write_tensors({"w": torch.full((50,), value)}, MODEL)
    write_record({"run": "a", "environment": {"device": "cpu", "device_name": "x86_64"}}, RUN)


def select() -> None:
    ledger.begin()
    read_record(RUN)
    copy(MODEL, CHOSEN)
    write_record({"run": "a"}, SELECTION)


def measure() -> None:
    ledger.begin()
    weights, _ = read_tensors(CHOSEN)
    write_table(pandas.DataFrame({"eigenvalue": weights["w"].numpy()}), SPECTRUM)
    write_record({"operator": "hessian"}, MEASURED)


def tabulate() -> None:
    ledger.begin()
    read_record(RUN)
    write_table(read_table(SPECTRUM).describe().reset_index(), TABLE)
    write_record({"rows": 8}, STUDY)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project whose four jobs have run."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tensors({"images": torch.ones(9)}, "resources/digits.safetensors")
        for job in (lambda: train(1.0), select, measure, tabulate):
            job()
    return folder


@pytest.fixture(autouse=True)
def project(made, tmp_path, monkeypatch) -> Path:
    """A copy of it, and the working directory."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def problems(*folders: Path) -> dict[str, str]:
    """Path to state of all that is not as recorded."""
    found = verify(folders or (RESULTS,)).problems
    return {str(finding.path.relative_to(Path.cwd())): finding.state for finding in found}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_untouched_results_are_as_recorded_and_counted_by_stage():
    found = verify([RESULTS])
    assert not found.problems and not found.absent
    assert {stage: (of["ok"], of["records"]) for stage, of in found.counts().items()} == {
        "runs": (2, 1), "selected": (2, 1), "spectra": (2, 1), "study": (2, 1),
    }  # fmt: skip


@pytest.mark.parametrize("path", [MODEL, CHOSEN, SPECTRUM, TABLE], ids=lambda path: path.parts[2])
def test_one_flipped_bit_is_seen_where_it_is_and_nowhere_else(path):
    flip_a_bit(path)
    assert problems() == {str(path): CHANGED}


def test_how_many_results_came_from_a_changed_file_is_told():
    flip_a_bit(CHOSEN)
    assert verify([RESULTS]).problems[0].why == "not as selection.json says; 1 result came from it"


def test_a_table_edited_by_hand_is_seen_though_it_is_a_whole_table():
    pandas.read_parquet(TABLE).iloc[:2].to_parquet(TABLE)
    assert problems() == {str(TABLE): CHANGED}


@pytest.mark.parametrize("path", [RUN, STUDY], ids=["read by others", "read by none"])
def test_an_edited_record_is_seen(path):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "run": "b"}))
    assert problems() == {str(path): CHANGED}


def test_a_record_in_another_layout_with_the_same_content_is_the_same_record():
    STUDY.write_text(json.dumps(json.loads(STUDY.read_text())))
    assert problems() == {}


def test_swapped_files_are_both_seen():
    MODEL.rename("aside")
    SPECTRUM.rename(MODEL)
    Path("aside").rename(SPECTRUM)
    assert problems() == {str(MODEL): CHANGED, str(SPECTRUM): CHANGED}


def test_a_removed_record_is_seen_by_what_it_told_of_and_by_those_who_read_it():
    RUN.unlink()
    assert problems() == {str(RUN): MISSING, str(MODEL): NOT_RECORDED}


def test_a_removed_file_and_one_that_no_record_tells_of_are_seen():
    SPECTRUM.unlink()
    shutil.copy(TABLE, TABLE.with_name("another.parquet"))
    assert problems() == {str(SPECTRUM): MISSING, str(TABLE.with_name("another.parquet")): NOT_RECORDED}


def test_a_run_made_anew_makes_outdated_what_came_from_it_and_nothing_after_all_jobs_ran():
    train(2.0)
    assert problems() == {str(SELECTION): OUTDATED, str(STUDY): OUTDATED}
    select()
    assert problems() == {str(MEASURED): OUTDATED, str(STUDY): OUTDATED}
    measure()
    tabulate()
    assert problems() == {}


def test_other_data_make_outdated_what_came_from_them_though_they_lie_elsewhere():
    flip_a_bit(Path("resources/digits.safetensors"))
    assert problems() == {str(RUN): OUTDATED}


def test_results_moved_without_their_data_are_compared_by_what_has_moved(project):
    RESULTS.rename(project / "mine")
    Path("resources").rename("away")
    found = verify([Path("mine")])
    assert not found.problems and [path.name for path in found.absent] == ["digits.safetensors"]
    flip_a_bit(Path("mine/runs/a/model.safetensors"))
    assert problems(Path("mine")) == {"mine/runs/a/model.safetensors": CHANGED}


def test_unfinished_work_is_counted_and_no_problem():
    write_tensors({"w": torch.ones(2)}, RESULTS / "runs/b/resume.safetensors")
    write_record({"task": "t"}, RESULTS / "runs/b/partial/task.json")
    found = verify([RESULTS])
    assert not found.problems and found.unfinished == 2


def test_code_that_has_changed_since_is_told_by_file_and_is_no_problem(monkeypatch):
    now = dict(recorded.read_recorded(RUN.absolute()).provenance["code"]["files"])
    monkeypatch.setattr("hessketch.verification.code_files", lambda: {**now, "records.py": "another"})
    found = verify([RESULTS])
    assert found.changed_code()["records.py"] == [path.absolute() for path in (RUN, SELECTION, MEASURED, STUDY)]
    assert not found.problems


def test_a_folder_without_records_and_one_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no record here says what made it"):
        verify([tmp_path / "empty"])
    with pytest.raises(InputError, match="no such folder"):
        verify([tmp_path / "nowhere"])


def test_the_command_says_what_made_results_and_that_all_is_as_recorded(capsys):
    main(["verify", "results/demo"])
    said = capsys.readouterr().out
    assert "results/demo: 8 files, 0 MiB, all as recorded" in said
    assert "on cpu (x86_64): 1 records" in said and "make anew" not in said


def test_the_command_fails_naming_each_problem_and_what_makes_it_anew(capsys):
    Path("Snakefile").touch()
    Path("config").mkdir()
    Path("config/demo.yaml").touch()
    flip_a_bit(CHOSEN)
    train(2.0)
    with pytest.raises(SystemExit) as ended:
        main(["verify", "results/demo"])
    said = capsys.readouterr().out
    assert ended.value.code == 1 and f"changed      {CHOSEN}: not as selection.json says" in said
    assert said.rstrip().endswith(
        f"make anew: snakemake --forcerun {CHOSEN} {TABLE} --configfile config/demo.yaml"
    )  # of a record a file that it tells of: rules name tables


def test_the_command_gives_everything_as_json(capsys):
    flip_a_bit(TABLE)
    with pytest.raises(SystemExit):
        main(["verify", "results/demo", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert [(problem["path"], problem["state"]) for problem in said["problems"]] == [(str(TABLE), CHANGED)]
    assert {record["path"] for record in said["records"]} == set(map(str, (RUN, SELECTION, MEASURED, STUDY)))
    assert said["make_anew"] is None  # no workflow here


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder / "hessketch-demo"


def test_an_unpacked_archive_is_verified_from_anywhere_and_without_hessketch(project, tmp_path, monkeypatch):
    Path("figures/demo").mkdir(parents=True)
    Path("figures/demo/plot.png").write_bytes(b"a picture")
    pack(RESULTS / "archive.zip", RESULTS, [Path("figures/demo"), Path("CITATION.cff")])
    there = unpacked(RESULTS / "archive.zip", tmp_path)
    monkeypatch.chdir(tmp_path)
    for folder in (there, there / "results/demo"):
        found = verify([folder])
        assert not found.problems and {path.name for path in found.left_out} >= {"model.safetensors"}
    lines = (there / "MANIFEST.sha256").read_text().splitlines()
    assert all(ledger.file_digest(there / line[66:]) == line[:64] for line in lines)
    kinds = {Path(line[66:]).suffix for line in lines}
    assert ".png" in kinds and ".safetensors" not in kinds and "torch==" in (there / "versions.txt").read_text()
    flip_a_bit(there / "figures/demo/plot.png")
    (there / TABLE).unlink()
    found = verify([there]).problems
    assert [(finding.path.name, finding.state) for finding in found] == [
        ("plot.png", CHANGED), (TABLE.name, MISSING),
    ]  # fmt: skip


def test_the_same_results_give_the_same_archive_whenever_they_are_packed(project):
    for name in ("one.zip", "two.zip"):
        pack(project / name, RESULTS, weights=True)
        for path in RESULTS.rglob("*.parquet"):
            path.touch()
    assert (project / "one.zip").read_bytes() == (project / "two.zip").read_bytes()
    assert str(MODEL) in " ".join(zipfile.ZipFile(project / "one.zip").namelist())


def test_results_that_are_not_as_recorded_are_not_packed(project):
    flip_a_bit(TABLE)
    with pytest.raises(InputError, match=r"summary.parquet \(changed\); python -m hessketch verify results/demo"):
        pack(project / "archive.zip", RESULTS)
    assert not (project / "archive.zip").exists()
