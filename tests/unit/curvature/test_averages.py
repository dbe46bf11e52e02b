"""One average, however the examples are batched, kept or loaded."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from hessketch.curvature import averages
from hessketch.curvature.losses import LOSSES
from hessketch.curvature.memory import saved_tensors, storage_bytes
from hessketch.curvature.operators import ComponentOperators, CurvatureOperator, second_moment
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.memory import free_memory
from hessketch.networks.registry import build_network

NAMES = ("hessian", "ggn", "residual", "second_moment", "gradient_covariance")
LOSS = LOSSES["cross_entropy"]


@pytest.fixture(scope="module")
def model():
    return build_network("vgg11", input_shape=(1, 32, 32), classes=3, width=1 / 32, norm="batch", seed=4).eval()


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(23, 1, 32, 32, generator=generator), torch.randint(0, 3, (23,), generator=generator)


def _batches(examples, size):
    return list(zip(*(t.split(size) for t in examples), strict=True))


def _vectors(operator, columns=2, dtype=torch.float32):
    return torch.randn(operator.shape[0], columns, generator=torch.Generator().manual_seed(6), dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_and_kept_graphs_change_a_float32_product_by_less_than_1e_5(model, examples, name):
    whole = CurvatureOperator(name, model, LOSS, [examples])
    vectors = _vectors(whole)
    expected = whole @ vectors
    one_batch = whole._average._kept[0][0].product.kept_bytes()
    for size, memory, kept in ((23, 0, 0), (8, None, 3), (8, one_batch * 0.8, 2), (8, 0, 0), (1, 0, 0)):
        operator = CurvatureOperator(name, model, LOSS, _batches(examples, size), memory=memory)
        assert operator.batches_kept == kept
        for _ in range(2):
            assert torch.linalg.norm(operator @ vectors - expected) <= 1e-5 * torch.linalg.norm(expected)


def test_columns_of_a_block_are_the_products_of_its_vectors(model, examples):
    for memory in (None, 0):
        operator = CurvatureOperator("ggn", model, LOSS, _batches(examples, 9), memory=memory)
        vectors = _vectors(operator, 3)
        single = torch.stack([operator @ vectors[:, i] for i in range(3)], dim=1)
        torch.testing.assert_close(operator @ vectors, single, rtol=1e-5, atol=1e-8)


def test_a_shuffling_loader_an_iterator_and_a_list_give_the_same(model, examples):
    expected = CurvatureOperator("hessian", model, LOSS, [examples])
    vector = _vectors(expected, 1)[:, 0]
    bound = 1e-5 * torch.linalg.norm(expected @ vector)
    loader = DataLoader(TensorDataset(*examples), batch_size=6, shuffle=True)
    for memory in (None, 2_000_000, 0):
        for batches in (loader, iter(_batches(examples, 5))):
            operator = CurvatureOperator("hessian", model, LOSS, batches, memory=memory)
            for _ in range(2):
                assert torch.linalg.norm(operator @ vector - expected @ vector) <= bound
    partial = CurvatureOperator("hessian", model, LOSS, loader, memory=2_000_000)
    assert partial.batches_kept == 0  # some would fit, but another pass may come in another order


def test_a_loader_that_changes_its_length_is_refused(model, examples):
    class Shrinking:
        count = 3

        def __iter__(self):
            self.count -= 1
            return iter(_batches(examples, 8)[: self.count + 1])

    operator = CurvatureOperator("hessian", model, LOSS, Shrinking(), memory=0)
    with pytest.raises(InputError, match="held 23 examples at first and 16 now"):
        operator @ _vectors(operator)


def test_weights_that_change_under_an_operator_are_noticed(examples):
    model = build_network("mlp", input_shape=(1, 32, 32), classes=3, width=1 / 64, norm="none", seed=4).eval()
    operator = CurvatureOperator("ggn", model, LOSS, [examples])
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    with pytest.raises(InputError, match="weights or buffers have changed since this operator was made"):
        operator @ _vectors(operator)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_losses_of_torch_are_understood_with_any_reduction(model, examples, reduction):
    expected = ComponentOperators(model, LOSS, [examples])
    vectors = _vectors(expected)
    operator = ComponentOperators(model, nn.CrossEntropyLoss(reduction=reduction), _batches(examples, 9))
    for name, product in operator.products(vectors).items():
        torch.testing.assert_close(product, expected.products(vectors)[name], rtol=1e-4, atol=1e-6)


def test_a_loss_of_probabilities_is_told_to_be_a_mean(examples):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 1), nn.Sigmoid(), nn.Flatten(0)).eval()
    targets = (examples[1] > 0).float()
    each = CurvatureOperator("hessian", model, nn.BCELoss(reduction="none"), [(examples[0], targets)])
    vectors = _vectors(each)
    mean = CurvatureOperator("hessian", model, nn.BCELoss(), _batches((examples[0], targets), 7))
    expected = each @ vectors
    assert torch.linalg.norm(mean @ vectors - expected) <= 1e-5 * torch.linalg.norm(expected)


def test_a_loss_that_is_neither_a_mean_nor_a_sum_is_refused(model, examples):
    for loss, words in (
        (lambda o, t: LOSS(o, t).sum() ** 2, "neither a mean nor a sum"),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 7.0])), "a mean with weights"),
        (nn.CrossEntropyLoss(ignore_index=0), "a mean with weights or ignored targets"),
        (lambda o, t: (o * 0).sum(), "the loss of the first batch is 0"),
        (lambda o, t: 0.5, "the loss returns float"),
        (lambda o, t: o.T, r"has shape \(3, 23\)"),
    ):
        with pytest.raises(InputError, match=words):
            CurvatureOperator("hessian", model, loss, [examples])


def test_targets_and_inputs_may_be_nested_and_outputs_have_more_axes():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.last = nn.Embedding(7, 4), nn.Linear(4, 5)

        def forward(self, data):
            return self.last(torch.tanh(self.embedding(data["words"])))

    torch.manual_seed(0)
    model = Words().double().eval()
    words = torch.randint(0, 7, (6, 3))
    data = {"words": words}, (torch.randint(0, 5, (6, 3)),)
    loss = lambda o, t: nn.functional.cross_entropy(o.transpose(1, 2), t[0], reduction="none").sum(1)  # noqa: E731
    operator = second_moment(model, loss, [data])
    gradients = []
    for i in range(6):
        value = loss(model({"words": words[i : i + 1]}), (data[1][0][i : i + 1],)).sum()
        gradients.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, model.parameters())]))
    expected = sum(torch.outer(g, g) for g in gradients) / 6
    torch.testing.assert_close(operator @ torch.eye(len(expected), dtype=torch.float64), expected)


def test_nan_in_the_weights_is_named_when_nothing_is_kept(examples):
    model = build_network("mlp", input_shape=(1, 32, 32), classes=3, width=1 / 64, norm="none", seed=4).eval()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    for name in NAMES[:4]:
        operator = CurvatureOperator(name, model, LOSS, [examples], memory=0)
        with pytest.raises(NotFiniteError, match="diverged"):
            operator @ _vectors(operator)


def test_nan_in_the_weights_is_named_with_a_mean_loss_too(examples):
    model = build_network("mlp", input_shape=(1, 32, 32), classes=3, width=1 / 64, norm="none", seed=4).eval()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="diverged"):
        CurvatureOperator("hessian", model, nn.CrossEntropyLoss(), [examples])


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.MSELoss(reduction="none"), nn.HuberLoss(), nn.SmoothL1Loss()])
@pytest.mark.parametrize("memory", [None, 0])
def test_regression_losses_of_torch_have_the_dense_hessian(loss, memory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double().eval()
    batch = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]

    def mean_loss(theta):
        pieces = [t.view_as(p) for t, p in zip(theta.split(sizes), model.parameters(), strict=True)]
        outputs = functional_call(model, dict(zip(names, pieces, strict=True)), (batch[0],))
        value = loss(outputs, batch[1])
        return value if value.ndim == 0 else value.sum() / 5

    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    expected = torch.autograd.functional.hessian(mean_loss, theta)
    operator = CurvatureOperator("hessian", model, loss, [batch], memory=memory)
    torch.testing.assert_close(operator @ torch.eye(len(theta), dtype=torch.float64), expected)


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("name", NAMES)
def test_inference_mode_around_an_operator_changes_nothing(examples, name, memory):
    model = build_network("mlp", input_shape=(1, 32, 32), classes=3, width=1 / 64, norm="none", seed=4).eval()
    expected = CurvatureOperator(name, model, LOSS, [examples], memory=memory)
    vectors = _vectors(expected)
    with torch.inference_mode():
        copies = examples[0].clone(), examples[1].clone()
        operator = CurvatureOperator(name, model, LOSS, [copies], memory=memory)
        product = operator @ vectors.clone()
    difference = torch.linalg.norm(product.clone() - expected @ vectors)
    assert difference <= 1e-5 * torch.linalg.norm(expected @ vectors)


def test_a_transformer_layer_has_a_symmetric_hessian():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=8, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 3)).double().eval()
    batch = torch.randn(4, 3, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    for memory in (None, 0):
        operator = CurvatureOperator("hessian", model, LOSS, [batch], memory=memory)
        block = torch.randn(operator.shape[0], 5, dtype=torch.float64)
        form = block.T @ (operator @ block)
        assert form.abs().max() > 0.1
        torch.testing.assert_close(form, form.T)


def test_empty_batches_among_others_are_passed_over(model, examples):
    empty = examples[0][:0], examples[1][:0]
    expected = CurvatureOperator("hessian", model, LOSS, [examples])
    vectors = _vectors(expected)
    for batches in ([empty, examples], [examples, empty]):
        for memory in (None, 0):
            operator = CurvatureOperator("hessian", model, nn.CrossEntropyLoss(), batches, memory=memory)
            assert operator.examples == 23
            assert torch.linalg.norm(operator @ vectors - expected @ vectors) <= 1e-5 * torch.linalg.norm(
                expected @ vectors
            )


def test_what_makes_no_sense_is_refused_with_the_remedy(model, examples):
    operator = CurvatureOperator("hessian", model, LOSS, [examples])
    mixing = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1024, track_running_stats=False), nn.Linear(1024, 3)).eval()
    two = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3).double()).eval()
    tuple_out = nn.LSTM(4, 3).eval()
    cases = [
        (lambda: operator @ [1.0], "real torch tensors"),
        (lambda: operator @ torch.ones(operator.shape[0], dtype=torch.complex64), "real torch tensors"),
        (lambda: CurvatureOperator("hessian", model, LOSS, examples), "give an iterable of pairs"),
        (lambda: CurvatureOperator("hessian", model, LOSS, [(*examples, 1)]), "a batch is tuple of 3; give"),
        (lambda: CurvatureOperator("hessian", model, LOSS, [examples], parameters=[]), "no parameter pattern"),
        (lambda: CurvatureOperator("hessian", model, LOSS, [examples], memory="1GB"), "a number of bytes"),
        (lambda: CurvatureOperator("hessian", mixing, LOSS, [examples]), "mixes the examples of a batch"),
        (lambda: CurvatureOperator("hessian", two, LOSS, [(torch.ones(2, 4), torch.ones(2))]), "one real floating"),
        (lambda: CurvatureOperator("ggn", tuple_out, LOSS, [(torch.ones(2, 4), torch.ones(2))]), "returns tuple"),
        (lambda: CurvatureOperator("ggn", nn.DataParallel(model), LOSS, [examples]), "model.module"),
    ]
    for call, words in cases:
        with pytest.raises(InputError, match=words):
            call()
    assert (operator @ torch.ones(operator.shape[0], 0)).shape == (operator.shape[0], 0)


def test_a_network_put_into_training_mode_later_is_noticed(examples):
    model = build_network("vgg11", input_shape=(1, 32, 32), classes=3, width=1 / 32, norm="batch", seed=4).eval()
    operator = CurvatureOperator("ggn", model, LOSS, [examples], memory=0)
    vectors = _vectors(operator)
    model.train()
    with pytest.raises(InputError, match="eval"):
        operator @ vectors
    model(examples[0])  # moves the running statistics
    model.eval()
    with pytest.raises(InputError, match="buffers have changed"):
        operator @ vectors


def test_a_part_left_in_training_mode_is_refused(examples):
    model = build_network("vgg11", input_shape=(1, 32, 32), classes=3, width=1 / 32, norm="batch", seed=4).eval()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).train()
    with pytest.raises(InputError, match="eval"):
        CurvatureOperator("hessian", model, LOSS, [examples])


def test_a_graphs_bytes_are_the_storages_that_it_saves_beside_the_parameters():
    weight, x = torch.ones(10, 20, requires_grad=True), torch.ones(4, 10)
    hidden = torch.tanh(x @ weight)  # saves x, weight and its own result
    saved = saved_tensors([(hidden * hidden).grad_fn])
    assert storage_bytes(saved, [weight]) == 4 * (4 * 10 + 4 * 20)


def test_graphs_take_at_most_their_share_of_free_memory(model, examples, monkeypatch):
    monkeypatch.setattr(averages, "free_memory", lambda device: 3_000_000)
    operator = CurvatureOperator("hessian", model, LOSS, _batches(examples, 2))
    used = sum(part.product.kept_bytes() for parts in operator._average._kept for part in parts)
    assert 0 < used <= 1_500_000 and 0 < operator.batches_kept < 12


def test_free_memory_is_positive_and_no_more_than_the_machine_has():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < free_memory("cpu") <= total
