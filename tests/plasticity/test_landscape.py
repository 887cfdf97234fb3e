"""The loss landscape against brute force: full Jacobians, full Hessians, hand arithmetic."""

import pytest
import torch
from torch import nn

from plasticity import (
    Network,
    OutputCopy,
    Randomness,
    Reader,
    effective_rank,
    gradient_covariance,
    hessian_eigenvalues,
    hidden_layers,
    landscape_metrics,
    tangent_kernel,
)
from tests.plasticity.models import mlp, network

ROWS = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tiny(activation=nn.Tanh):
    return mlp((3, 4, 3, 2), activation).double()


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def as_function(model):
    shapes = {name: p.shape for name, p in model.named_parameters()}

    def output(flat):
        parts = dict(zip(shapes, flat.split([shape.numel() for shape in shapes.values()]), strict=True))
        return torch.func.functional_call(model, {k: v.view(shapes[k]) for k, v in parts.items()}, (ROWS,))

    return output


def jacobian(model):
    return torch.func.jacrev(as_function(model))(vector(model))  # (rows, outputs, parameters)


def hessian(function, at):
    return torch.func.jacrev(torch.func.jacrev(function))(at)


def test_the_tangent_kernel_is_j_j_transposed():
    model = tiny()
    j = jacobian(model)
    assert torch.allclose(tangent_kernel(model, ROWS), torch.einsum("aop,bop->ab", j, j))


def test_gradients_of_single_rows_and_their_cosines():
    model = tiny()
    gradients = torch.einsum("ro,rop->rp", (model(ROWS) - TARGETS).detach(), jacobian(model))
    unit = nn.functional.normalize(gradients, dim=-1)
    assert torch.allclose(gradient_covariance(model, ROWS, TARGETS), unit @ unit.T)


def test_a_row_without_a_gradient_has_no_direction():
    model, targets = tiny(), TARGETS.clone()
    targets[2] = model(ROWS)[2].detach()
    found = gradient_covariance(model, ROWS, targets)
    assert (found[2] == 0).all()
    assert found[0, 0] == pytest.approx(1)


def test_lanczos_finds_the_eigenvalues_of_the_full_hessian():
    model = tiny()
    output = as_function(model)
    full = hessian(lambda flat: (output(flat) - TARGETS).square().sum(-1).mean() / 2, vector(model))
    wanted = torch.linalg.eigvalsh(full).flip(0)[:3].tolist()
    loss = (model(ROWS) - TARGETS).square().sum(-1).mean() / 2
    found = hessian_eigenvalues(loss, list(model.parameters()), 3, random=Randomness(0, "x"))
    assert found == pytest.approx(wanted, rel=1e-8)
    all_of_them = hessian_eigenvalues(loss, list(model.parameters()), 3, steps=1000, random=Randomness(1, "x"))
    assert all_of_them == pytest.approx(wanted, rel=1e-8)


def test_lanczos_stops_where_there_is_nothing_more():
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    bowl = 2 * x[0] ** 2 + 0.5 * x[1] ** 2 + 0.5 * x[2] ** 2  # second derivatives 4, 1, 1
    assert hessian_eigenvalues(bowl, [x], 3, random=Randomness(0, "x")) == pytest.approx([4.0, 1.0])
    saddle = x[0] * x[1]
    assert hessian_eigenvalues(saddle, [x], 5, random=Randomness(0, "x")) == pytest.approx([1.0, 0.0, -1.0], abs=1e-9)


def test_the_metrics_are_those_of_the_stated_loss():
    net = network(tiny())
    found = landscape_metrics(net, ROWS, seed=3)
    model = OutputCopy(net)
    assert torch.equal(model(ROWS), torch.cat(net.outputs(ROWS), 1))
    noise = Randomness(3, "landscape").normal(6, 2).double()
    j = jacobian(model)
    unit = nn.functional.normalize(torch.einsum("ro,rop->rp", noise, j), dim=-1)
    assert found["gradient_rank"] == pytest.approx(effective_rank(torch.linalg.eigvalsh(unit @ unit.T).clamp_min(0)))
    kernel = torch.einsum("aop,bop->ab", j, j)
    assert found["ntk_rank"] == pytest.approx(effective_rank(torch.linalg.eigvalsh(kernel).clamp_min(0)))
    output, now = as_function(model), model(ROWS).detach()
    full = hessian(lambda flat: (output(flat) - now - noise).square().sum(-1).mean() / 2, vector(model))
    assert found["hessian_eigenvalue_1"] == pytest.approx(float(torch.linalg.eigvalsh(full)[-1]), rel=1e-8)
    assert found["hessian_eigenvalue_1"] >= found["hessian_eigenvalue_2"] >= found["hessian_eigenvalue_3"]


def test_collapsed_features_have_few_directions():
    healthy, collapsed = mlp((3, 16, 16, 1), seed=1), mlp((3, 16, 16, 1), seed=1)
    with torch.no_grad():
        collapsed[0].weight[:] = collapsed[0].weight[0]
        collapsed[0].bias[:] = 5.0
    inputs = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    one, other = (landscape_metrics(network(model), inputs) for model in (healthy, collapsed))
    assert other["ntk_rank"] < one["ntk_rank"]
    assert other["gradient_rank"] < one["gradient_rank"] / 2


def test_a_dead_network_has_none():
    dead = mlp((3, 8, 1))
    with torch.no_grad():
        dead[0].bias.fill_(-100.0)
        dead[2].bias.requires_grad_(False)
    found = landscape_metrics(network(dead), ROWS.float())
    assert found["ntk_rank"] == pytest.approx(1)  # the output's bias alone
    assert found["hessian_eigenvalue_1"] == pytest.approx(1)


def test_it_leaves_no_trace():
    model = mlp((3, 8, 2))
    net = network(model)
    model(ROWS.float()).sum().backward()
    before, stream = [(p.clone(), p.grad.clone()) for p in model.parameters()], torch.get_rng_state()
    recorded = net.activations["0"]
    with torch.no_grad():
        one, two = (landscape_metrics(net, ROWS.float()) for _ in range(2))
    assert one == two
    assert torch.equal(torch.get_rng_state(), stream)
    assert net.activations["0"] is recorded
    assert all(
        torch.equal(p, v) and torch.equal(p.grad, g) for p, (v, g) in zip(model.parameters(), before, strict=True)
    )
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_convolutions_with_norms():
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4), nn.ReLU()),
        nn.Linear(4, 2),
    )
    found = landscape_metrics(network(model), torch.randn(20, 1, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert 1 <= found["gradient_rank"] <= 20


def test_a_reader_of_other_things_is_refused():
    hidden, critic = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(6, 1)
    optimizer = torch.optim.SGD([*hidden.parameters(), *critic.parameters()], lr=0.1)
    net = Network("net", hidden_layers(hidden, [Reader(critic)]), [optimizer])
    with pytest.raises(ValueError, match="no function of its inputs alone"):
        landscape_metrics(net, ROWS.float())
