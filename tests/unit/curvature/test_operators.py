"""Operators against the dense float64 matrix of torch.func, over losses and layers."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev, jvp

from hessketch.curvature.losses import LOSSES
from hessketch.curvature.operators import BlockDiagonalOperator, ComponentOperators, CurvatureOperator, predictor
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.registry import build_network

OPERATORS = ("hessian", "ggn", "residual", "second_moment", "gradient_covariance")


class Residual(nn.Module):
    """A convolution with a skip connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + torch.relu(self.inner(x))


def _trained_statistics(model: nn.Module) -> nn.Module:
    """Random batch-norm statistics, so that eval mode is not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


NETWORKS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh(), nn.Linear(6, 3)),
    "batch norm and max pooling": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    ),
    "group norm, residual and average pooling": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), Residual(4), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 3)
    ),
    "gelu, last layer without bias": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(32, 4), nn.GELU(), nn.BatchNorm1d(4), nn.Linear(4, 3, bias=False)
    ),
    "a linear network, whose residual mixes layers only": lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)),
}


@pytest.fixture(params=NETWORKS, scope="module")
def network(request):
    torch.manual_seed(len(request.param))
    return _trained_statistics(NETWORKS[request.param]().double()).eval()


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(7, 2, 4, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (7,), generator=generator)


def dense(model, loss, inputs, targets, columns=None) -> dict[str, torch.Tensor]:
    """The matrices by forward and reverse mode of torch.func, written from their definitions; or times columns (p, k),
    which for the Hessian are differentiated along instead."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def outputs_of(theta):
        pieces = theta.split([s.numel() for s in shapes])
        named = {n: piece.view(s) for n, piece, s in zip(names, pieces, shapes, strict=True)}
        return functional_call(model, named, (inputs,))

    def mean_loss(theta):
        return loss(outputs_of(theta), targets).mean()

    outputs = outputs_of(flat)
    jacobian = jacrev(outputs_of)(flat)
    curvature = torch.stack(
        [hessian(lambda f, t=t: loss(f[None], t[None]).sum())(f) for f, t in zip(outputs, targets, strict=True)]
    )
    if columns is None:
        columns = torch.eye(len(flat), dtype=torch.float64)
        full = jacrev(jacrev(mean_loss), chunk_size=256)(flat)
    else:
        full = torch.stack([jvp(jacrev(mean_loss), (flat,), (column,))[1] for column in columns.T], dim=1)
    gauss_newton = torch.einsum("ncp,ncd,ndk->pk", jacobian, curvature, jacobian @ columns) / len(targets)
    gradients = jacrev(lambda theta: loss(outputs_of(theta), targets))(flat)
    centred = gradients - gradients.mean(0)
    return {
        "hessian": full,
        "ggn": gauss_newton,
        "residual": full - gauss_newton,
        "second_moment": gradients.T @ (gradients @ columns) / len(targets),
        "gradient_covariance": centred.T @ (centred @ columns) / len(targets),
    }


def as_dense(operator: CurvatureOperator) -> torch.Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


def assert_close_in_norm(found: torch.Tensor, expected: dict[str, torch.Tensor], name: str) -> None:
    """To 1e-10 of its own norm; a component that vanishes, to the rounding of the whole."""
    own, whole = (torch.linalg.norm(expected[key]) for key in (name, "hessian"))
    assert torch.linalg.norm(found - expected[name]) <= 1e-10 * own + 1e-14 * whole


@pytest.fixture(scope="module")
def expected_matrices(network, examples):
    """The dense matrices of one network for every loss, made once."""
    return {name: dense(network, function, *examples) for name, function in LOSSES.items()}


@pytest.fixture
def expected(expected_matrices, loss):
    return next(m for name, m in expected_matrices.items() if LOSSES[name] is loss)


@pytest.fixture(params=["vgg11", "resnet18_smooth"], scope="module")
def registered(request):
    """A network of the papers with a few thousand parameters, its images, and five products with each matrix."""
    width = {"vgg11": 1 / 128}.get(request.param, 1 / 64)
    model = build_network(request.param, input_shape=(1, 32, 32), classes=3, width=width, norm="batch", seed=2)
    model = _trained_statistics(model.double()).eval()
    generator = torch.Generator().manual_seed(6)
    images = torch.randn(3, 1, 32, 32, generator=generator, dtype=torch.float64)
    examples = images, torch.tensor([0, 2, 1])
    block = torch.randn(sum(p.numel() for p in model.parameters()), 5, dtype=torch.float64, generator=generator)
    return model, examples, block, dense(model, LOSSES["cross_entropy"], *examples, columns=block)


@pytest.mark.parametrize("name", OPERATORS)
def test_products_with_the_papers_networks_are_those_of_the_definition_to_1e_10(registered, name):
    model, examples, block, exact = registered
    operator = CurvatureOperator(name, model, LOSSES["cross_entropy"], [examples])
    assert 1000 < operator.shape[0] < 5000
    assert torch.linalg.norm(operator @ block - exact[name]) <= 1e-10 * torch.linalg.norm(exact[name])


@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_equals_the_dense_matrix_to_1e_10_and_is_symmetric(network, loss, examples, expected, name):
    found = as_dense(CurvatureOperator(name, network, loss, [examples]))
    assert_close_in_norm(found, expected, name)
    torch.testing.assert_close(found, found.T, rtol=1e-9, atol=1e-12)


def test_the_hessian_is_the_sum_of_ggn_and_residual(network, loss, examples):
    generator = torch.Generator().manual_seed(1)
    operators = {name: CurvatureOperator(name, network, loss, [examples]) for name in OPERATORS[:3]}
    size = operators["hessian"].shape[0]
    block = torch.randn(size, 3, dtype=torch.float64, generator=generator)
    total = operators["ggn"] @ block + operators["residual"] @ block
    torch.testing.assert_close(operators["hessian"] @ block, total, rtol=1e-10, atol=1e-12)


def test_one_pass_gives_hessian_ggn_and_residual_of_a_block(network, loss, examples, expected):
    components = ComponentOperators(network, loss, [examples])
    block = torch.randn(components.shape[0], 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for name, found in components.products(block).items():
        assert_close_in_norm(found, {key: matrix @ block for key, matrix in expected.items()}, name)
    assert components.products(block[:, 0])["ggn"].shape == block[:, 0].shape


def test_a_predictor_hessian_is_the_residual_of_its_one_example(network, loss, examples):
    inputs, targets = examples[0][2:3], examples[1][2:3]
    expected = dense(network, loss, inputs, targets)
    assert_close_in_norm(as_dense(predictor(network, loss, inputs, targets)), expected, "residual")
    with pytest.raises(InputError, match="one example, 7 given"):
        predictor(network, loss, *examples)


@pytest.mark.parametrize("name", OPERATORS)
def test_name_patterns_choose_a_diagonal_block(network, loss, examples, expected, name):
    operator = CurvatureOperator(name, network, loss, [examples], parameters=["*.bias"])
    sizes = [(n, p.numel()) for n, p in network.named_parameters()]
    chosen = torch.cat([torch.full((size,), n.endswith("bias")) for n, size in sizes])
    block = {key: m[chosen][:, chosen] for key, m in expected.items()}
    assert list(operator.parameter_shapes) == [n for n, _ in sizes if n.endswith("bias")]
    assert torch.linalg.norm(as_dense(operator) - block[name]) <= 1e-10 * torch.linalg.norm(expected["hessian"])


@pytest.mark.parametrize("name", ["hessian", "second_moment"])
@pytest.mark.parametrize("blocks", ["tensors", "modules", ["*.weight", "*.bias"]])
def test_a_block_diagonal_operator_keeps_the_blocks_and_nothing_between(
    network, examples, expected_matrices, name, blocks
):
    loss, expected = LOSSES["cross_entropy"], expected_matrices["cross_entropy"]
    operator = BlockDiagonalOperator(name, network, loss, [examples], blocks=blocks)
    names = list(operator.parameter_shapes)
    of = {n: i for i, block in enumerate(operator.blocks) for n in block}
    labels = torch.cat([torch.full((p.numel(),), of[n]) for n, p in network.named_parameters()])
    assert len(operator.blocks) == {"tensors": len(names), "modules": len({n.rpartition(".")[0] for n in names})}.get(
        str(blocks), 2
    )
    kept = expected[name] * (labels[:, None] == labels)
    bound = 1e-10 * torch.linalg.norm(kept) + 1e-14 * torch.linalg.norm(expected["hessian"])
    assert torch.linalg.norm(as_dense(operator) - kept) <= bound


def test_patterns_and_blocks_that_fit_nothing_are_refused(network, examples):
    loss = LOSSES["cross_entropy"]
    with pytest.raises(InputError, match=r"no parameter matches 'features\.\*'"):
        CurvatureOperator("hessian", network, loss, [examples], parameters="features.*")
    with pytest.raises(InputError, match="overlap"):
        BlockDiagonalOperator("hessian", network, loss, [examples], blocks=["*", "*.weight"])


def test_the_ggn_of_cross_entropy_is_positive_semidefinite_with_rank_at_most_n_times_c_minus_1(network, examples):
    inputs, targets = examples[0][:4], examples[1][:4]
    matrix = as_dense(CurvatureOperator("ggn", network, LOSSES["cross_entropy"], [(inputs, targets)]))
    eigenvalues = torch.linalg.eigvalsh(matrix)
    scale = eigenvalues.abs().max()
    assert eigenvalues.min() >= -1e-12 * scale
    assert int((eigenvalues > 1e-10 * scale).sum()) <= 4 * (3 - 1)


@pytest.mark.parametrize("name", OPERATORS)
def test_products_leave_no_gradient_in_the_parameters(network, examples, name):
    operator = CurvatureOperator(name, network, LOSSES["cross_entropy"], [examples])
    product = operator @ torch.ones(operator.shape[0], dtype=torch.float64)
    assert not product.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_single_sigmoid_output_is_supported():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double().eval()
    batch = (torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0]))
    loss = LOSSES["binary_cross_entropy"]
    expected = dense(model, loss, *batch)
    for name in OPERATORS:
        found = as_dense(CurvatureOperator(name, model, loss, [batch]))
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-12)


def test_float32_products_agree_with_float64_to_1e_5():
    torch.manual_seed(3)
    double = _trained_statistics(NETWORKS["batch norm and max pooling"]().double()).eval()
    single = NETWORKS["batch norm and max pooling"]()
    single.load_state_dict(double.state_dict())
    batch = (torch.randn(9, 2, 4, 4), torch.randint(0, 3, (9,)))
    loss = LOSSES["cross_entropy"]
    reference = CurvatureOperator("hessian", double, loss, [(batch[0].double(), batch[1])])
    operator = CurvatureOperator("hessian", single.eval(), loss, [batch])
    vector = torch.randn(operator.shape[0])
    difference = (operator @ vector).double() - reference @ vector.double()
    assert difference.norm() <= 1e-5 * (reference @ vector.double()).norm()


def test_a_network_in_training_mode_is_refused(examples):
    model = NETWORKS["mlp"]().double()
    with pytest.raises(InputError, match="eval"):
        CurvatureOperator("hessian", model, LOSSES["cross_entropy"], [examples])


def test_no_examples_and_unknown_names_are_refused(network):
    with pytest.raises(InputError, match="no examples"):
        CurvatureOperator("hessian", network, LOSSES["cross_entropy"], [])
    with pytest.raises(InputError, match=r"allowed: hessian, ggn, residual.*nearest valid name: hessian"):
        CurvatureOperator("hesian", network, LOSSES["cross_entropy"], [])


def test_a_vector_of_the_wrong_length_is_refused(network, examples):
    operator = CurvatureOperator("hessian", network, LOSSES["cross_entropy"], [examples])
    with pytest.raises(InputError, match="cannot multiply"):
        operator @ torch.ones(3)


def test_nan_weights_are_named(examples):
    model = NETWORKS["mlp"]().double().eval()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="diverged"):
        CurvatureOperator("hessian", model, LOSSES["cross_entropy"], [examples])
