"""Each page on adding something is true: its code, read out of the page, is run from outside the package."""

import json
import sys

import numpy as np
import pytest
import torch
from adding_pages import blocks, commands, write_files
from torch import nn
from torch.func import functional_call, hessian

from hessketch.__main__ import main
from hessketch.data.catalog import describe
from hessketch.extensions import load_extensions
from hessketch.federated.methods.registry import build_method
from hessketch.federated.settings import FederatedSettings
from hessketch.records import read_record, read_table, read_tensors
from hessketch.trainers import Trainer


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A function that puts a page's files into an empty folder, in which the test then is, and runs its commands."""

    def follow(page: str) -> list[list[str]]:
        monkeypatch.chdir(tmp_path)
        write_files(page, tmp_path)
        for words in commands(page):
            main([*words, "--device", "cpu"])
        return commands(page)

    return follow


def test_a_network_is_trained_and_its_checkpoint_opened_by_name(outside, tmp_path):
    outside("network")
    record = json.loads((tmp_path / "tiny_run/record.json").read_text())
    assert record["status"] == "finished" and record["p"] == 64 * 16 + 16 + 16 * 10 + 10
    assert list(record["provenance"]["extensions"]) == ["my_network.py"]
    weights, metadata = read_tensors(tmp_path / "tiny_run/model.safetensors")
    assert metadata["architecture"]["network"] == "tiny" and weights["1.weight"].shape == (16, 64)
    eigenvalues = read_table(tmp_path / "tiny_spectrum/eigenvalues.parquet")
    assert set(eigenvalues["operator"]) == {"hessian", "ggn"} and np.isfinite(eigenvalues["eigenvalue"]).all()


def test_a_data_set_is_learnt(outside, tmp_path):
    outside("dataset")
    assert describe("two_moons").input_shape == (2,)
    record = read_record(tmp_path / "moons_run/record.json")
    assert record["n"] == 200 and record["test_accuracy"] > 0.8


def test_a_compressor_trains_and_is_its_formula(outside, tmp_path):
    outside("compressor")
    record = read_record(tmp_path / "random_k_run/record.json")
    assert record["status"] == "finished" and record["reduction_numbers"] == pytest.approx(4, rel=0.01)
    p, draws = 40, 4000
    method = build_method(Trainer.parse("random_k-x4"), p, FederatedSettings(), seed=3)
    update = torch.randn(p, dtype=torch.float64)
    lifted = torch.stack([method.decode(method.encode(update, step), step) for step in range(draws)])
    assert set(map(int, (lifted != 0).sum(1))) == {10}
    assert torch.allclose(lifted[0][lifted[0] != 0], 4 * update[lifted[0] != 0])
    standard_error = lifted.std(0) / draws**0.5
    assert ((lifted.mean(0) - update).abs() < 5 * standard_error).all()
    error = (lifted - update).square().sum(1) / update.square().sum()
    assert method.expected_error(update) == 3 and float(error.mean()) == pytest.approx(3, rel=0.05)
    rounds = read_table(tmp_path / "random_k_run/rounds.parquet")
    assert (rounds["upload_bytes"] < 4 * record["p"] / 4 + 100).all()


def test_an_operators_spectrum_is_that_of_its_dense_matrix(outside, tmp_path):
    outside("operator")
    spectrum = read_table(tmp_path / "operator_spectrum/eigenvalues.parquet")
    assert set(spectrum["operator"]) == {"hessian", "scaled_hessian"}
    assert (tmp_path / "operator_spectrum/spectrum.png").is_file()
    of_pairs = read_table(tmp_path / "operator_pairs/eigenvalues.parquet")
    leading = spectrum[spectrum["operator"] == "scaled_hessian"].sort_values("rank")["eigenvalue"]
    assert np.allclose(of_pairs["eigenvalue"][:5], leading[:5], rtol=1e-3)
    [in_python] = blocks("operator", "python")
    sys.path.insert(0, str(tmp_path))
    torch.manual_seed(0)
    found: dict = {}
    exec(in_python, found)
    values = torch.linalg.eigvalsh(_scaled(found["model"], *found["batches"][0]))
    largest = values[values.abs().argsort(descending=True)][:5]
    assert torch.allclose(torch.as_tensor(found["found"].values), largest, rtol=1e-4, atol=1e-6)


def _scaled(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """|theta| H |theta| by torch's own dense Hessian, in float64."""
    model, inputs = model.double(), inputs.double()
    named = dict(model.named_parameters())
    theta = torch.cat([p.detach().flatten() for p in named.values()])

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([p.numel() for p in named.values()])
        given = {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, given, inputs), targets)

    return theta.abs()[:, None] * hessian(loss)(theta) * theta.abs()


def test_claims_of_the_study_are_judged_from_its_table(tmp_path, monkeypatch):
    import pandas

    from hessketch.claims.text import claims_text
    from hessketch.claims.verdicts import judged
    from hessketch.records import write_table

    monkeypatch.chdir(tmp_path)
    write_files("study", tmp_path)
    load_extensions(["my_claims.py"])
    sizes = {"examples_per_class": [3, 6], "n": [30, 60], "p": 7, "seed": 0, "sharpness": [2.0, 1.5]}
    table = pandas.DataFrame({"dataset": "digits", "network": "mlp", "width": 1.0, **sizes})
    write_table(table, tmp_path / "results/sharpness/sharpness.parquet")
    claims = judged(tmp_path / "results").claims.set_index("claim")
    own = claims.loc["sharpness_is_positive"]
    assert (own["verdict"], own["value"], own["cases"]) == ("supported", 1.5, 2)
    assert (claims.drop("sharpness_is_positive")["verdict"] == "not tested at this scale").all()
    assert "\n\nown\n" in claims_text(claims.reset_index())
