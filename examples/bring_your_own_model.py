"""A model of one's own: any algorithm of Stable-Baselines3 or sb3-contrib, new or trained, gets plasticity."""

from stable_baselines3 import DQN, TD3

from agents import add_plasticity, plastic


def replaced(model):
    """Units replaced so far, by network."""
    count = {}
    for name, methods in model.policy.plasticity.items():
        count[name] = sum(int(value) for key, value in methods.telemetry().items() if key.endswith("/replaced"))
    return count


if __name__ == "__main__":
    # A model that exists, in place: weights, optimizer and replay buffer stay
    model = DQN("MlpPolicy", "CartPole-v1", learning_starts=200, seed=0, device="cpu").learn(500)
    add_plasticity(model, {"cbp": {"replacement_rate": 1e-3, "maturity": 100}})
    model.learn(2_000, reset_num_timesteps=False)
    print("DQN replaced", replaced(model))

    # Or from the start; plastic(TD3).load(path) loads it, and plastic(DQN).load(path) the one above
    methods = {"redo": {"period": 100}, "l2": {"strength": 1e-4}}
    model = plastic(TD3)("MlpPolicy", "Pendulum-v1", plasticity=methods, batch_size=64, seed=0, device="cpu")
    model.learn(300)
    print("TD3 replaced", replaced(model))
