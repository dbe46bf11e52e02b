import pytest
import torch
from torch import nn

from hessketch.curvature.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from hessketch.curvature.operators import CurvatureOperator
from hessketch.curvature.per_example import per_example_gradients
from hessketch.errors import InputError, NotFiniteError


def network(outputs: int = 3, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Convolution, batch norm with statistics of its own, pooling and a linear layer."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, outputs)]
    model = nn.Sequential(*layers).to(dtype)
    model[1].running_mean.fill_(0.3)
    return model.eval()


def examples(n: int = 7, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, 1, 6, 6, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(classes, (n,), generator=generator)


def one_by_one(model, loss, inputs, targets) -> torch.Tensor:
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        gradients = torch.autograd.grad(loss(model(x[None]), y[None]).sum(), list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "loss, outputs", [(cross_entropy, 3), (mean_squared_error, 3), (mean_squared_error, 1), (binary_cross_entropy, 1)]
)
def test_each_row_is_the_gradient_of_one_example(loss, outputs):
    model, (inputs, targets) = network(outputs), examples(classes=max(outputs, 2))
    found = per_example_gradients(model, loss, inputs, targets)
    torch.testing.assert_close(found, one_by_one(model, loss, inputs, targets), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_chunk_changes_no_gradient(chunk):
    model, (inputs, targets) = network(), examples()
    whole = per_example_gradients(model, cross_entropy, inputs, targets)
    found = per_example_gradients(model, cross_entropy, inputs, targets, chunk)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-14)


def test_rows_make_the_second_moment_operator():
    model, (inputs, targets) = network(), examples()
    rows = per_example_gradients(model, cross_entropy, inputs, targets)
    operator = CurvatureOperator("second_moment", model, cross_entropy, [(inputs, targets)])
    identity = torch.eye(rows.shape[1], dtype=rows.dtype)
    torch.testing.assert_close(rows.T @ rows / len(rows), operator @ identity, rtol=1e-10, atol=1e-13)


def test_fixed_parameters_have_no_column():
    model, (inputs, targets) = network(), examples()
    whole = per_example_gradients(model, cross_entropy, inputs, targets)
    model[0].requires_grad_(False)  # the first 20 parameters
    found = per_example_gradients(model, cross_entropy, inputs, targets)
    torch.testing.assert_close(found, whole[:, 20:], rtol=1e-12, atol=1e-14)


def test_float64_gradients_of_a_float32_model_leave_it_as_it_is():
    model, (inputs, targets) = network(dtype=torch.float32), examples()
    inputs = inputs.float()
    before = {name: (t.clone(), t._version) for name, t in model.state_dict().items()}
    found = per_example_gradients(model, cross_entropy, inputs, targets, dtype=torch.float64)
    for name, t in model.state_dict().items():
        assert t.dtype == before[name][0].dtype and torch.equal(t, before[name][0]) and t._version == before[name][1]
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(
        found, one_by_one(model.double(), cross_entropy, inputs.double(), targets), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("chunk", [0, -1, 2.5, True])
def test_a_chunk_below_one_example_is_refused(chunk):
    with pytest.raises(InputError, match="chunk"):
        per_example_gradients(network(), cross_entropy, *examples(), chunk)


def test_train_mode_unequal_lengths_and_no_examples_are_refused():
    inputs, targets = examples()
    with pytest.raises(InputError, match="eval"):
        per_example_gradients(network().train(), cross_entropy, inputs, targets)
    with pytest.raises(InputError, match="7 inputs and 6 targets"):
        per_example_gradients(network(), cross_entropy, inputs, targets[:6])
    with pytest.raises(InputError, match="at least one"):
        per_example_gradients(network(), cross_entropy, inputs[:0], targets[:0])


def test_outputs_and_gradients_that_are_not_numbers_are_an_error():
    model, (inputs, targets) = network(), examples()
    with pytest.raises(NotFiniteError, match="gradients"):
        per_example_gradients(model, lambda o, _: (o - o.detach()).abs().sqrt().sum(1), inputs, targets)
    with torch.no_grad():
        model[5].weight[0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="outputs"):
        per_example_gradients(model, cross_entropy, inputs, targets)


WEIGHTS = torch.tensor([1.0, 5.0, 0.2])  # float32, of classes


@pytest.mark.parametrize("name", ["mean", "sum"])
def test_the_mean_of_the_rows_is_the_gradient_of_the_mean_loss_for_losses_of_a_whole_batch(name):
    model, (inputs, targets) = network(), examples()
    rows = per_example_gradients(model, nn.CrossEntropyLoss(reduction=name), inputs, targets)
    found = torch.autograd.grad(cross_entropy(model(inputs), targets).mean(), list(model.parameters()))
    torch.testing.assert_close(rows.mean(0), torch.cat([g.flatten() for g in found]), rtol=1e-10, atol=1e-13)


def test_a_sum_with_class_weights_of_another_precision_keeps_them():
    model, (inputs, targets) = network(), examples()
    found = per_example_gradients(model, nn.CrossEntropyLoss(WEIGHTS, reduction="sum"), inputs, targets)
    expected = per_example_gradients(model, cross_entropy, inputs, targets) * WEIGHTS.double()[targets][:, None]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_class_weights_are_seen_in_data_that_lie_by_class():
    model, (inputs, _) = network(), examples(300)
    with pytest.raises(InputError, match="mean with weights"):
        per_example_gradients(model, nn.CrossEntropyLoss(WEIGHTS.double()), inputs, torch.arange(300) // 100, 10)


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_with_class_weights_or_ignored_targets_is_refused(chunk, dtype):
    model, (inputs, targets) = network(dtype=dtype), examples()
    for loss in (nn.CrossEntropyLoss(WEIGHTS), nn.CrossEntropyLoss(ignore_index=int(targets[0]))):
        with pytest.raises(InputError, match="mean with weights or ignored targets"):
            per_example_gradients(model, loss, inputs, targets, chunk, dtype=torch.float64)


def test_a_target_that_a_mean_ignores_is_an_error_wherever_it_lies():
    model, (inputs, targets) = network(), examples(200)
    targets[101] = -100
    with pytest.raises(NotFiniteError, match="ignores this target"):
        per_example_gradients(model, nn.CrossEntropyLoss(), inputs, targets)
    rows = per_example_gradients(model, nn.CrossEntropyLoss(reduction="none"), inputs, targets)
    assert rows[101].abs().max() == 0 and rows[100].abs().max() > 0


def test_a_loss_may_be_given_by_its_name():
    model, (inputs, targets) = network(), examples()
    found = per_example_gradients(model, "cross_entropy", inputs, targets)
    assert torch.equal(found, per_example_gradients(model, cross_entropy, inputs, targets))
    with pytest.raises(InputError, match="'mse' is unknown"):
        per_example_gradients(model, "mse", inputs, targets)
