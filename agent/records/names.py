"""The names of a run's files, and the folder of all runs."""

from pathlib import Path

RUNS = Path("runs")
#: In a run's folder: its options, its metrics, and the picture of its returns.
CONFIG, METRICS, CURVE = "config.yaml", "metrics.jsonl", "learning_curve.png"
#: In `best` and `last`: the saved agent, and the results of evaluate.py.
AGENT, EVALUATION = "agent.safetensors", "evaluation.json"
