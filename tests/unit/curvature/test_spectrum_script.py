"""The pipeline's script of spectra over two processes: the whole Hessian's eigenvalues, one record and one log."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector

from hessketch.checkpoints import Architecture, save_model
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import read_prepared
from hessketch.networks.registry import network_of
from hessketch.records import read_record, read_table, write_tensors
from hessketch.runs import Run

SCRIPT = Path(__file__).parents[3] / "workflow/scripts/spectrum.py"
RUN = "clusters-k3-d4-s4/noise0/n7/mlp-none-w0.03125/cross_entropy/sgd/{}seed0"


def write_inputs(folder):
    """A network and data of its own, an odd number of examples; returns the network."""
    architecture = Architecture("mlp", (4,), 3, 1 / 32, "none")
    model = network_of(architecture)
    save_model(model, architecture, folder / "model.safetensors", run=RUN.format("lr0.1/"))
    tensors, generator = {}, torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        tensors[f"{split}_images"] = torch.randn(30, 4, generator=generator)
        tensors[f"{split}_labels"] = torch.arange(30) % 3
    write_tensors(tensors, folder / "data.safetensors", {"dataset": "clusters-k3-d4-s4"})
    return model


def exact_eigenvalues(model, examples):
    """Of the dense Hessian of the mean loss, the largest magnitudes first."""
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        parameters = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return cross_entropy(torch.func.functional_call(model, parameters, examples.inputs), examples.targets)

    dense = torch.autograd.functional.hessian(loss, parameters_to_vector(model.parameters()).detach())
    eigenvalues = torch.linalg.eigvalsh(dense.double())
    return eigenvalues[eigenvalues.abs().argsort(descending=True)]


def test_two_processes_find_the_eigenvalues_over_all_examples_and_the_first_alone_reports(tmp_path):
    model, run = write_inputs(tmp_path), Run.from_path(RUN.format(""))
    files = ["--model", "model.safetensors", "--data", "data.safetensors", "--output", "out", "--log", "log"]
    settings = "--lanczos-steps 16 --kpm-moments 4 --grid-points 32 --deflation-rank 3 --device cpu --threads 2"
    words = [run.path, "--split", "train", *files, *settings.split(), "--processes", "2"]
    done = subprocess.run([sys.executable, SCRIPT, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    log = (tmp_path / "log").read_text()
    assert done.returncode == 0, done.stderr + log
    record = read_record(tmp_path / "out/record.json")
    assert (record["processes"], record["n"]) == (2, 21) and log.count("done: mean loss") == 1
    found = read_table(tmp_path / "out/eigenvalues.parquet").query("operator == 'hessian'")["eigenvalue"]
    examples = examples_of_run(run, read_prepared(tmp_path / "data.safetensors"), "train", 7)
    expected = exact_eigenvalues(model.eval(), examples)[: len(found)]
    assert len(found) == 3 and found.to_numpy() == pytest.approx(expected.numpy(), rel=1e-4)
