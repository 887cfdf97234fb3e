"""The described structure against finite differences: which inputs really change when one unit does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from torch import nn

from agents import plastic
from plasticity import replace_units
from plasticity.describe import ACTIVATIONS
from tests.agents.algorithms import CASES
from tests.agents.models import ContinuousImages, Images, ppo, sac


class ConvEnd(BaseFeaturesExtractor):
    """Ends in flattened channels: each is read in 16 columns."""

    def __init__(self, space):
        super().__init__(space, 4 * 16)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 9, 9), nn.ReLU(), nn.Flatten())

    def forward(self, observations):
        return self.body(observations)

    def plastic_modules(self):
        return list(self.body)


def images(name, **kwargs):
    env = Images() if name == "DQN" else ContinuousImages()
    return plastic(CASES[name].algorithm)("CnnPolicy", env, buffer_size=50, seed=0, device="cpu", **kwargs)


CONV_END = {"features_extractor_class": ConvEnd}
NETWORKS = {
    "ppo conv end": (
        lambda: ppo(Images(), policy="CnnPolicy", policy_kwargs=CONV_END | {"net_arch": [5]}),
        {"features": 1, "pi": 1, "vf": 1},
    ),
    "sac conv end": (
        lambda: sac(ContinuousImages(), policy="CnnPolicy", buffer_size=50, policy_kwargs=CONV_END),
        {"actor": 3, "qf_features": 1, "qf0": 2, "qf1": 2},
    ),
    "sac conv end shared": (
        lambda: sac(
            ContinuousImages(),
            policy="CnnPolicy",
            buffer_size=50,
            policy_kwargs=CONV_END | {"share_features_extractor": True},
        ),
        {"actor": 3, "qf0": 2, "qf1": 2},
    ),
    "ppo mlp": (lambda: ppo("Pendulum-v1"), {"pi": 2, "vf": 2}),
    "ppo mlp uneven": (lambda: ppo(policy_kwargs={"net_arch": {"pi": [5], "vf": []}}), {"pi": 1}),
    "ppo gsde": (lambda: ppo("Pendulum-v1", use_sde=True), {"pi": 2, "vf": 2}),
    "ppo gsde reduced": (
        lambda: ppo("Pendulum-v1", use_sde=True, policy_kwargs={"full_std": False, "log_std_init": -1.0}),
        {"pi": 2, "vf": 2},
    ),
    "ppo cnn": (lambda: ppo(Images(), policy="CnnPolicy"), {"features": 4}),
    "ppo cnn with heads": (
        lambda: ppo(ContinuousImages(), policy="CnnPolicy", policy_kwargs={"net_arch": {"pi": [8], "vf": [7, 6]}}),
        {"features": 4, "pi": 1, "vf": 2},
    ),
    "ppo cnn one head": (
        lambda: ppo(
            ContinuousImages(), policy="CnnPolicy", use_sde=True, policy_kwargs={"net_arch": {"pi": [], "vf": [7]}}
        ),
        {"features": 4, "vf": 1},
    ),
    "ppo cnn apart": (
        lambda: ppo(Images(), policy="CnnPolicy", policy_kwargs={"share_features_extractor": False}),
        {"pi": 4, "vf": 4},
    ),
    "sac": (lambda: sac(policy_kwargs={"n_critics": 3}), {"actor": 2, "qf0": 2, "qf1": 2, "qf2": 2}),
    "sac gsde": (lambda: sac(use_sde=True), {"actor": 2, "qf0": 2, "qf1": 2}),
    "sac cnn": (
        lambda: sac(ContinuousImages(), policy="CnnPolicy", buffer_size=50),
        {"actor": 6, "qf_features": 4, "qf0": 2, "qf1": 2},
    ),
    "sac cnn shared": (
        lambda: sac(
            ContinuousImages(), policy="CnnPolicy", buffer_size=50, policy_kwargs={"share_features_extractor": True}
        ),
        {"actor": 6, "qf0": 2, "qf1": 2},
    ),
}

# The other algorithms; what RecurrentPPO's LSTMs read is checked in test_any_algorithm.py
NETWORKS |= {
    name.lower(): (case.make, dict.fromkeys(case.networks, 2))
    for name, case in CASES.items()
    if name not in ("PPO", "SAC", "RecurrentPPO")
}
NETWORKS |= {
    "tqc gsde": (lambda: CASES["TQC"].make(use_sde=True), {"actor": 2, "qf0": 2, "qf1": 2}),
    "td3 cnn": (lambda: images("TD3"), {"actor": 6, "qf_features": 4, "qf0": 2, "qf1": 2}),
    "td3 cnn shared": (
        lambda: images("TD3", policy_kwargs={"share_features_extractor": True, "net_arch": [6]}),
        {"actor": 5, "qf0": 1, "qf1": 1},
    ),
    "sac cnn shared without hidden layers": (
        lambda: images("SAC", policy_kwargs={"share_features_extractor": True, "net_arch": {"pi": [], "qf": [6]}}),
        {"actor": 4, "qf0": 1, "qf1": 1},
    ),
    "sac gsde cnn shared without hidden layers": (
        lambda: images(
            "SAC", use_sde=True, policy_kwargs={"share_features_extractor": True, "net_arch": {"pi": [], "qf": [6]}}
        ),
        {"actor": 4, "qf0": 1, "qf1": 1},
    ),
    "dqn cnn": (lambda: images("DQN"), {"q_net": 4}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    build, expected = NETWORKS[request.param]
    model = build()
    torch.manual_seed(0)
    with torch.no_grad():  # no unit may be silent by accident
        for p in model.policy.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return model, expected


def batch(model):
    space = model.observation_space
    observations = np.stack([space.sample() for _ in range(3)])
    tensor, _ = model.policy.obs_to_tensor(observations)
    return tensor, torch.rand(3, int(np.prod(model.action_space.shape or (1,))))


def sites(model):
    """Every activation module that the policy trains, found without the description."""
    found = []
    for name, module in model.policy.named_modules():
        squashing = isinstance(module, nn.Hardtanh) or (isinstance(module, nn.Tanh) and name.startswith("actor.mu"))
        if isinstance(module, ACTIVATIONS) and not squashing and "_target" not in name:
            found.append(module)
    return list(dict.fromkeys(found))


class Probe:
    """Runs the policy with one activation perturbed and all others held, recording the inputs of every linear layer."""

    def __init__(self, model):
        self.model, self.batch = model, batch(model)
        self.has_heads = hasattr(model.policy, "action_net")
        self.inputs, self.held, self.bump = {}, {}, None
        self.recording = True
        self.handles = []
        for module in sites(model):
            self.handles.append(module.register_forward_hook(self._activation))
        for module in model.policy.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                self.handles.append(module.register_forward_pre_hook(self._input))

    def _activation(self, module, args, output):
        if self.recording:
            self.held[module] = output
            return output
        output = self.held[module].clone()
        if module is self.bump[0]:
            output[:, self.bump[1]] += 0.37 * (1 + output.abs().max())
        return output

    def _input(self, module, args):
        self.inputs[module] = args[0].detach().clone()

    @torch.no_grad()
    def run(self, bump=None):
        self.recording, self.bump, self.inputs = bump is None, bump, {}
        self.model.policy.forward_networks(*self.batch)
        std = None
        policy = self.model.policy
        if isinstance(policy, nn.Module) and self.model.use_sde:
            dist = policy.get_distribution(self.batch[0]) if self.has_heads else self._sac_distribution()
            assert isinstance(dist, StateDependentNoiseDistribution)
            std = dist.distribution.stddev.clone()
        elif self.has_heads:  # which are outside what forward_networks runs
            policy.get_distribution(self.batch[0]), policy.predict_values(self.batch[0])
        if self.model.use_sde and self.has_heads:
            policy.predict_values(self.batch[0])
        return dict(self.inputs), std

    def _sac_distribution(self):
        actor = self.model.policy.actor
        mean, log_std, rest = actor.get_action_dist_params(self.batch[0])
        return actor.action_dist.proba_distribution(mean, log_std, rest["latent_sde"])

    def close(self):
        for handle in self.handles:
            handle.remove()


def test_every_hidden_layer_is_a_site_once(case):
    model, expected = case
    networks = model.policy.networks
    assert {name: len(network.layers) for name, network in networks.items()} == expected
    described = [layer.activation for network in networks.values() for layer in network.layers]
    assert len(described) == len(set(described))
    assert set(described) == set(sites(model))


def test_the_readers_are_those_whose_inputs_change(case):
    model, _ = case
    probe = Probe(model)
    parts = [part for name, part in model.policy.named_children() if name.endswith("_target")]
    target = {module for part in parts for module in part.modules()}
    base, base_std = probe.run()
    try:
        for network in model.policy.networks.values():
            for layer in network.layers:
                for unit in {0, layer.units // 2, layer.units - 1}:
                    inputs, std = probe.run((layer.activation, unit))
                    changed = {}
                    for linear, x in inputs.items():
                        moved = (x != base[linear]).any(0)
                        moved = moved.flatten(1).any(1) if isinstance(linear, nn.Conv2d) else moved.flatten()
                        if linear not in target and moved.any():
                            changed[linear] = moved
                    mask = torch.zeros(layer.units, dtype=torch.bool)
                    mask[unit] = True
                    described = {reader.linear: reader.mask(mask) for reader in layer.readers}
                    assert changed.keys() == described.keys()
                    assert all(torch.equal(changed[linear], described[linear]) for linear in changed)
                    if base_std is not None:
                        noisy = bool((std != base_std).any())
                        assert noisy == bool(layer.noise_readers)
    finally:
        probe.close()


def test_each_parameter_belongs_to_one_network_and_is_optimised_by_its_first_optimizer(case):
    model, _ = case
    owned = [linear for network in model.policy.networks.values() for linear in network.linears]
    assert len(owned) == len(set(owned))
    for network in model.policy.networks.values():
        held = {id(p) for group in network.optimizers[0].param_groups for p in group["params"]}
        for linear in network.linears:
            assert {id(p) for p in linear.parameters()} <= held


def test_replaced_units_change_no_reader_any_more(case):
    model, _ = case
    # in the order in which they act: SAC's actor steps after its critics
    for network in sorted(model.policy.networks.values(), key=lambda n: n.name in ("features", "qf_features", "actor")):
        picked = {layer.name: torch.arange(layer.units) == 1 for layer in network.layers}
        replace_units(network, picked, lambda layer, count: torch.ones(count, layer.incoming().shape[-1]))
    probe = Probe(model)
    try:
        base, _ = probe.run()
        for network in model.policy.networks.values():
            for layer in network.layers:
                inputs, _ = probe.run((layer.activation, 1))
                for reader in layer.readers:
                    assert not torch.equal(inputs[reader.linear], base[reader.linear])
                    with torch.no_grad():
                        before, after = reader.linear(base[reader.linear]), reader.linear(inputs[reader.linear])
                    assert torch.allclose(before, after, atol=1e-5)
    finally:
        probe.close()


def test_gsde_rows_of_replaced_units_take_their_initial_log_std():
    for model, initial, log_std in (
        (m := sac(use_sde=True, plasticity={"cbp": {"replacement_rate": 0.2, "maturity": 0}}), -3.0, m.actor.log_std),
        (
            p := ppo("Pendulum-v1", use_sde=True, plasticity={"cbp": {"replacement_rate": 0.05, "maturity": 0}}),
            0.0,
            p.policy.log_std,
        ),
    ):
        with torch.no_grad():
            log_std.fill_(1.0)
        model.learn(64)
        name = "actor" if "actor" in model.policy.networks else "pi"
        state = model.policy.plasticity[name][0].layers["1"]
        young = state.age == 0
        assert young.any()
        assert (log_std[young] == initial).all()


def test_an_extractor_nobody_described_is_refused_by_name():
    class Mine(BaseFeaturesExtractor):
        def __init__(self, space):
            super().__init__(space, 4)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU())

        def forward(self, observations):
            return self.body(observations)

    class HiddenInside(FlattenExtractor):
        """Looks like flattening by its class, and is not."""

    with pytest.raises(ValueError, match="features extractor HiddenInside has hidden layers"):
        ppo("Pendulum-v1", policy_kwargs={"features_extractor_class": HiddenInside})

    class Described(Mine):
        def plastic_modules(self):
            return list(self.body)

    with pytest.raises(ValueError, match="features extractor Mine has hidden layers that nobody described"):
        ppo("Pendulum-v1", policy_kwargs={"features_extractor_class": Mine})
    model = ppo("Pendulum-v1", policy_kwargs={"features_extractor_class": Described})
    assert set(model.policy.networks) == {"features", "pi", "vf"}


def test_with_a_shared_extractor_the_targets_extractor_is_kept_in_step_too():
    model = sac(
        ContinuousImages(),
        policy="CnnPolicy",
        buffer_size=50,
        policy_kwargs={"share_features_extractor": True, "target_critic": "sync"},
    )
    network = model.policy.networks["actor"]
    mask = torch.arange(network.layers[0].units) == 1
    replace_units(network, {"0": mask}, lambda layer, count: torch.full((count, layer.incoming().shape[-1]), 0.5))
    target = model.critic_target.features_extractor.cnn
    assert (target[0].weight[1] == 0.5).all()
    assert (target[2].weight[:, 1] == 0).all()
