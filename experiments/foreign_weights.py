"""Weights of a file that somebody else wrote: read as tensors only, and compared with an agent of ours.

Where they do not fit, settings with which they would are looked for, and tried by building that agent.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from agents.algorithm import read_states
from agents.finite import non_finite, optimizers
from experiments.agent_settings import ACTIVATIONS
from experiments.errors import BadInput
from experiments.schema import Config
from plasticity import METHODS

Tensors = Mapping[str, Tensor]
Build = Callable[[Config], BaseAlgorithm]

SAFE = (
    "such a file could run any code, so it was not loaded. Only tensors are taken here: have its author save the model "
    "anew with Stable-Baselines3's model.save(), and never load this file with PPO.load or torch.load yourself"
)
# Where each algorithm keeps its hidden layers: of the actor, of the (first) critic
_HIDDEN = {
    "ppo": (r"mlp_extractor\.policy_net\.(\d+)\.weight", r"mlp_extractor\.value_net\.(\d+)\.weight"),
    "sac": (r"actor\.latent_pi\.(\d+)\.weight", r"critic\.qf0\.(\d+)\.weight"),
}
_ACTIONS = {"ppo": r"action_net\.weight", "sac": r"actor\.mu\.(?:0\.)?weight"}
_DEFAULT_ACTIVATION = {"ppo": "Tanh", "sac": "ReLU"}  # of SB3's policies


@dataclass(frozen=True)
class Weights:
    """What a file holds. policy: name -> tensor; said: the parts of its `data` entry that are plain JSON."""

    path: Path
    sha256: str
    policy: Tensors
    said: Mapping[str, Any]

    @property
    def algorithm(self) -> str | None:
        """`ppo` or `sac`, by the names of the networks; None for others."""
        if any(name.startswith("mlp_extractor.") for name in self.policy) and "value_net.weight" in self.policy:
            return "ppo"
        noise = any(name.startswith("actor.log_std") for name in self.policy)  # TD3 and DDPG have none
        return "sac" if noise and "critic.qf0.0.weight" in self.policy else None

    @property
    def activation(self) -> str | None:
        """The class of the hidden activation; None where the file does not say."""
        if self.algorithm is None or not self.said:
            return None
        kind = re.search(r"(\w+)'>$", str(self._arguments.get("activation_fn", "")))
        return kind[1] if kind else _DEFAULT_ACTIVATION[self.algorithm]

    @property
    def methods(self) -> dict[str, Any]:
        """The plasticity methods it was trained with, if that was here."""
        found = self._arguments.get("plasticity")
        return {name: {} for name in found if name in METHODS} if isinstance(found, Mapping) else {}

    @property
    def _arguments(self) -> Mapping[str, Any]:
        found = self.said.get("policy_kwargs")
        return found if isinstance(found, Mapping) else {}


def read(path: Path) -> Weights:
    """Read a zip written by SB3's `save`; raises `BadInput` where that is not possible or not safe."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, which finds a pickle odd before it refuses it
            policy: Any = read_states(path)["policy"]
        said = _said(path)
    except pickle.UnpicklingError as error:
        raise BadInput(f"{path} holds other things than tensors where weights should be: {SAFE}") from error
    except Exception as error:  # bytes that anybody may have put together can raise anything
        text = " ".join(str(error).split())
        raise BadInput(text if str(path) in text else f"{path} cannot be read: {text}") from error
    if not isinstance(policy, Mapping) or not all(isinstance(value, Tensor) for value in policy.values()):
        raise BadInput(f"{path} is no SB3 checkpoint: its policy.pth holds no table of tensors")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Weights(path, digest, {name: tensor for name, tensor in policy.items() if _is_weight(name)}, said)


def put_into(model: BaseAlgorithm, weights: Weights, config: Config, build: Build, optimizer: bool) -> None:
    """Give an agent of this configuration these weights, and with `optimizer` Adam's moments; raises `BadInput`.

    build: makes an agent of another configuration for the same environment, to try whether it would fit.
    """
    if faults := list(_faults(weights, model, config, build)):
        raise BadInput(faults)
    try:
        model.warm_start(weights.path, optimizer)  # type: ignore[attr-defined]
    except (ValueError, KeyError, TypeError, RuntimeError) as error:  # of weights that fit, so it is the optimizers'
        raise BadInput(
            f"{weights.path}: its optimizer's state does not fit ({error}); leave out --optimizer"
        ) from error
    if optimizer:
        _check_moments(model, weights.path)
    if names := non_finite(model):
        raise BadInput(f"{weights.path} holds NaN or infinity, in {', '.join(names)}")


def _said(path: Path) -> dict[str, Any]:
    """The `data` entry without what is pickled in it."""
    with zipfile.ZipFile(path) as archive:
        try:
            found = json.loads(archive.read("data"))
        except (KeyError, ValueError):
            return {}
    return found if isinstance(found, dict) else {}


def _is_weight(name: str) -> bool:
    return not name.startswith("plasticity.")


def _faults(weights: Weights, model: BaseAlgorithm, config: Config, build: Build) -> Iterator[str]:
    theirs, ours = weights.algorithm, config.agent.algorithm
    if theirs is None:
        yield f"{weights.path} holds networks of neither PPO nor SAC: {', '.join(sorted(weights.policy)[:4])} ..."
    elif theirs != ours:
        yield f"{weights.path} holds an agent of {theirs.upper()}, the words one of {ours.upper()}: agent={theirs}"
    elif rows := list(differences(weights.policy, _own(model))):
        yield f"{weights.path} does not fit this agent's networks; theirs -> ours:"
        yield from (f"  {row}" for row in rows)
        yield from _ways_to_fit(weights, model, config, build)
    elif words := _activation_words(weights, config):
        ours = ACTIVATIONS[config.agent.activation].__name__
        yield (
            f"{weights.path} was trained with {weights.activation}; with this agent's {ours} the same weights would be "
            f"another function: {words[0]}"
        )


def differences(theirs: Tensors, ours: Tensors) -> Iterator[str]:
    """A line `name: theirs -> ours` for each tensor whose shape differs, or that only one side has."""
    for name in sorted(theirs.keys() | ours.keys()):
        shapes = [str(tuple(side[name].shape)) if name in side else "none" for side in (theirs, ours)]
        if shapes[0] != shapes[1]:
            yield f"{name}: {shapes[0]} -> {shapes[1]}"


def _own(model: BaseAlgorithm) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.policy.state_dict().items() if _is_weight(name)}


def _ways_to_fit(weights: Weights, model: BaseAlgorithm, config: Config, build: Build) -> Iterator[str]:
    """What to type for an agent that fits, tried; and what no setting of the agent can mend."""
    own = _own(model)
    settings = _settings(weights.policy, own, config)
    words = [f"agent.{name}={_typed(value)}" for name, value in settings.items()] + _activation_words(weights, config)
    spaces = list(_spaces(weights.policy, own, config))
    yield from spaces
    for methods in () if spaces else (config.plasticity, {}, weights.methods):
        try:
            other = build(replace(config, agent=replace(config.agent, **settings), plasticity=dict(methods)))
        except BadInput:
            continue
        if not list(differences(weights.policy, _own(other))):
            chosen = [] if methods is config.plasticity else [f"plasticity=[{','.join(methods)}]".replace("[]", "none")]
            yield f"it fits with: {' '.join([*words, *chosen])}"
            return
    if words:
        yield f"nearer with: {' '.join(words)}{'' if spaces else ', and yet not the same'}"


def _settings(theirs: Tensors, ours: Tensors, config: Config) -> dict[str, Any]:
    """The agent's settings that these shapes tell, where they are not as they are here."""
    agent = config.agent
    (actor, critic), (own_actor, own_critic) = (_widths(side, agent.algorithm) for side in (theirs, ours))
    found: dict[str, Any] = {}
    if (actor, critic) != (own_actor, own_critic):
        found["net_arch"] = actor
        if critic != actor or agent.critic_net_arch is not None:
            found["critic_net_arch"] = None if critic == actor else critic
    if agent.algorithm == "sac" and (critics := _critics(theirs)) != _critics(ours):
        found["n_critics"] = critics
    if (noise := _uses_sde(theirs)) != agent.use_sde:
        found["use_sde"] = noise
    policy = "CnnPolicy" if any(".cnn." in name for name in theirs) else "MlpPolicy"
    if policy != agent.policy:
        found["policy"] = policy
    return found


def _spaces(theirs: Tensors, ours: Tensors, config: Config) -> Iterator[str]:
    """Sizes that the environment sets."""
    algorithm, env = config.agent.algorithm, config.env.id
    images = any(".cnn." in name for side in (theirs, ours) for name in side)
    seen = [None if images else _size(side, _HIDDEN[algorithm][0].replace(r"(\d+)", "0"), 1) for side in (theirs, ours)]
    acts = [_size(side, _ACTIONS[algorithm], 0) for side in (theirs, ours)]
    advice = "choose the environment it was trained in, env=..."
    if None not in seen and seen[0] != seen[1]:
        yield f"its networks read observations of {seen[0]} numbers, {env} gives {seen[1]}: {advice}"
    if None not in acts and acts[0] != acts[1]:
        yield f"it chooses actions of size {acts[0]}, {env} takes {acts[1]}: {advice}"


def _size(side: Tensors, pattern: str, dimension: int) -> int | None:
    found = (tensor for name, tensor in side.items() if re.fullmatch(pattern, name) and tensor.ndim == 2)
    return next((int(tensor.shape[dimension]) for tensor in found), None)


def _activation_words(weights: Weights, config: Config) -> list[str]:
    names = {kind.__name__: name for name, kind in ACTIVATIONS.items()}
    theirs = weights.activation
    if theirs is None or names.get(theirs) == config.agent.activation:
        return []
    return [f"agent.activation={names[theirs]}" if theirs in names else f"{theirs} is none of {', '.join(ACTIVATIONS)}"]


def _widths(side: Tensors, algorithm: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Hidden widths of the actor and of the critic."""
    actor, critic = ([int(layer.shape[0]) for layer in _layers(side, pattern)] for pattern in _HIDDEN[algorithm])
    return tuple(actor), tuple(critic if algorithm == "ppo" else critic[:-1])  # the last of SAC's is the output


def _layers(side: Tensors, pattern: str) -> list[Tensor]:
    found = [(int(match[1]), tensor) for name, tensor in side.items() if (match := re.fullmatch(pattern, name))]
    return [tensor for _, tensor in sorted(found, key=lambda one: one[0]) if tensor.ndim == 2]


def _critics(side: Tensors) -> int:
    return len({name.split(".")[1] for name in side if name.startswith("critic.qf")})


def _uses_sde(side: Tensors) -> bool:
    """State-dependent exploration has one standard deviation for each last hidden unit and action."""
    return any(name in ("log_std", "actor.log_std") and tensor.ndim == 2 for name, tensor in side.items())


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_moments(model: BaseAlgorithm, path: Path) -> None:
    """torch takes moments of any shape, and fails at the first step."""
    networks = {name: one for name, one in optimizers(model).items() if name != "entropy coefficient"}
    if not any(one.state for one in networks.values()):
        raise BadInput(f"{path} holds no moments of an optimizer; leave out --optimizer")
    for name, one in networks.items():
        for parameter, state in one.state.items():
            if any(state[moment].shape != parameter.shape for moment in ("exp_avg", "exp_avg_sq")):
                raise BadInput(
                    f"{path}: moments of the {name} have other shapes than its weights; leave out --optimizer"
                )
