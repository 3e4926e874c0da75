"""Names of options in other libraries."""

#: Names in Stable-Baselines3, CleanRL, Tianshou and Dopamine, and our options for them.
OTHER_LIBRARIES = {
    "learning_rate": "agent.lr",
    **dict.fromkeys(("buffer_size", "replay_capacity", "memory_size"), "agent.replay_size"),
    **dict.fromkeys(("total_timesteps", "timesteps", "max_steps", "num_steps"), "steps"),
    **dict.fromkeys(("train_freq", "train_frequency", "gradient_steps", "update_period"), "agent.replay_ratio"),
    **dict.fromkeys(
        ("target_update_interval", "target_network_frequency", "target_update_freq", "target_update_period"),
        "agent.target_every",
    ),
    **dict.fromkeys(("min_replay_history", "start_size"), "agent.learning_starts"),
    **dict.fromkeys(("exploration_fraction", "epsilon_decay_period"), "agent.epsilon.steps"),
    **dict.fromkeys(("exploration_final_eps", "end_e", "epsilon_train", "eps_train_final"), "agent.epsilon.end"),
    **dict.fromkeys(("exploration_initial_eps", "start_e"), "agent.epsilon.start"),
    **dict.fromkeys(("n_envs", "training_num", "num_train_envs"), "num_envs"),
    **dict.fromkeys(("env_id", "gym_id", "game_name"), "env"),
    **dict.fromkeys(("std_init", "sigma", "noisy_std"), "agent.noise.sigma0"),
    "update_horizon": "agent.n_step",
    "compile": "backend",
    "v_min": "agent.categorical.v_min",
    "v_max": "agent.categorical.v_max",
    **dict.fromkeys(("n_atoms", "num_atoms"), "agent.categorical.atoms"),
    "alpha": "agent.priority.exponent",
    "n_quantiles": "agent.quantile.count",
}
#: Options of which other libraries have values in other units: updates a step, updates, steps.
OTHER_UNITS = ("agent.replay_ratio", "agent.target_every", "agent.epsilon.steps")
