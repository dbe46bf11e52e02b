"""Networks with one output for two classes: they learn, their files rebuild them, their curvature is exact."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call, hessian, jacrev

from hessketch.checkpoints import load_weights, read_architecture
from hessketch.curvature.losses import LOSSES, correct, mean_loss_and_accuracy
from hessketch.curvature.operators import CurvatureOperator
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import prepare_dataset
from hessketch.federated.job import federate_runs
from hessketch.federated.settings import FederatedSettings
from hessketch.federation_config import reduction_problems
from hessketch.networks.registry import build_network, network_of
from hessketch.runs import Run
from hessketch.training.job import train_run
from hessketch.training.settings import TrainingSettings

SINGLE = ("binary_cross_entropy", "mean_squared_error", "sigmoid_squared_error")
RUN = Run("digits-classes3+8-8x8", 0.0, 40, "mlp", "none", 0.1, SINGLE[0], "sgd", 0.05, 0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits():
    prepared = prepare_dataset(RUN.dataset, "absent")
    return [examples_of_run(RUN, prepared, "train", 40), examples_of_run(RUN, prepared, "test", None)]


@pytest.mark.parametrize("loss", SINGLE)
def test_one_output_learns_to_tell_threes_from_eights(splits, tmp_path, loss):
    rate = 0.01 if loss == "mean_squared_error" else 0.05  # its slope grows with the output
    run, settings = replace(RUN, loss=loss), TrainingSettings(learning_rate=rate, epochs=30, batch_size=10)
    record = train_run(run, *splits, settings, tmp_path, device=CPU)
    assert record["train_accuracy"] >= 0.95 and record["test_accuracy"] >= 0.9
    architecture = read_architecture(tmp_path / "model.safetensors")
    assert (architecture.classes, architecture.input_shape) == (1, (1, 8, 8))
    assert record["p"] == 64 * 26 + 26 + 26 * 26 + 26 + 26 + 1
    model = network_of(architecture)
    load_weights(model, tmp_path / "model.safetensors")
    outputs = model.eval()(splits[1].inputs).detach()
    assert outputs.shape == (100, 1)
    assert correct(outputs, splits[1].targets, LOSSES[loss]).double().mean().item() == record["test_accuracy"]
    assert LOSSES[loss](outputs, splits[1].targets).mean().item() == pytest.approx(record["test_loss"], rel=1e-5)


@pytest.mark.parametrize("dataset", ["digits-classes3+8-8x8", "digits-classes3+8+1-8x8"])
def test_softmax_and_three_classes_keep_an_output_a_class(tmp_path, dataset):
    outputs = {}
    for loss in LOSSES:
        run = replace(RUN, dataset=dataset, loss=loss, width=0.02)
        prepared = prepare_dataset(dataset, "absent")
        examples = examples_of_run(run, prepared, "train", 2)
        train_run(run, examples, examples, TrainingSettings(epochs=1), tmp_path / loss, device=CPU)
        outputs[loss] = read_architecture(tmp_path / loss / "model.safetensors").classes
    single = 1 if dataset == RUN.dataset else 3
    assert outputs == {"cross_entropy": 2 if single == 1 else 3} | dict.fromkeys(SINGLE, single)


def test_a_federation_of_one_output_learns_too(splits, tmp_path):
    run = replace(RUN, trainer="count_sketch-x2", learning_rate=0.3)
    settings = FederatedSettings(clients=4, rounds=30, local_steps=3)
    (record,) = federate_runs([run], lambda _: tuple(splits), settings, lambda _: tmp_path, device=CPU)
    assert read_architecture(tmp_path / "model.safetensors").classes == 1
    assert record["p"] == 64 * 26 + 26 + 26 * 26 + 26 + 26 + 1
    assert record["train_accuracy"] >= 0.9


def test_reductions_are_compared_with_the_parameters_of_the_network_that_is_trained():
    """A reduction is at most half of the parameters; with a second output there are five more."""
    single = 4 * 64 + 4 + 4 * 4 + 4 + 4 + 1
    federation = {
        "datasets": {"digits-classes3+8-8x8": {}},
        "networks": [{"name": "mlp", "norm": "none", "width": 4 / 256}],
        "methods": ["top_r"],
        "reductions": [(single + 5) // 2],
        "clients": 2,
    }
    for loss, refused in (("cross_entropy", False), ("binary_cross_entropy", True)):
        lines = reduction_problems({"federation": {**federation, "losses": [loss]}})
        assert bool(lines) == refused, lines


@pytest.mark.parametrize("name", ["hessian", "ggn", "residual", "second_moment", "gradient_covariance"])
@pytest.mark.parametrize("loss", SINGLE)
def test_operators_of_one_output_are_the_dense_matrices(name, loss):
    model = build_network("mlp", input_shape=(1, 3, 3), classes=1, width=0.015, norm="none", seed=1).double().eval()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 1, 3, 3, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 1, 1, 0, 1, 0])
    shapes = {key: p.shape for key, p in model.named_parameters()}
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])

    def outputs_at(theta):
        pieces = theta.split([shape.numel() for shape in shapes.values()])
        named = {key: piece.view(shapes[key]) for key, piece in zip(shapes, pieces, strict=True)}
        return functional_call(model, named, (inputs,))[:, 0]

    def losses_at(outputs):
        return LOSSES[loss](outputs[:, None], targets)

    jacobian, whole = jacrev(outputs_at)(theta), hessian(lambda t: losses_at(outputs_at(t)).mean())(theta)
    slopes = torch.func.grad(lambda o: losses_at(o).sum())(outputs_at(theta))
    bends = hessian(lambda o: losses_at(o).sum())(outputs_at(theta)).diagonal()
    gradients, ggn = slopes[:, None] * jacobian, jacobian.T * bends @ jacobian / 6
    moment, mean = gradients.T @ gradients / 6, gradients.mean(0)
    expected = {
        "hessian": whole,
        "ggn": ggn,
        "residual": whole - ggn,
        "second_moment": moment,
        "gradient_covariance": moment - torch.outer(mean, mean),
    }[name]
    found = CurvatureOperator(name, model, LOSSES[loss], [(inputs, targets)]) @ torch.eye(len(theta)).double()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12 * expected.abs().max().item())


def test_evaluation_counts_a_single_output_of_squared_error_from_one_half():
    outputs, targets = torch.tensor([[0.2], [0.4], [0.7], [0.9]]), torch.tensor([0, 0, 0, 1])
    value, share = mean_loss_and_accuracy(torch.nn.Identity(), LOSSES["mean_squared_error"], [(outputs, targets)])
    assert share == 0.75
    assert value == pytest.approx((0.04 + 0.16 + 0.49 + 0.01) / 4)
