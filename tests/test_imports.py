"""The allowed imports, and functions that are forbidden. The tests read the source, so that they see all code paths."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: The layers of packages, the lowest first: a file may import from layers below its own and from its own package.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("agent.common",),
    ("agent.noise",),
    ("agent.config", "envs"),
    ("agent.networks", "agent.replay", "agent.records"),
    ("agent.learning",),
    ("agent.compute",),
    ("agent.running",),
    ("agent.command",),
    ("train", "evaluate", "compare", "share", "tune", "hydra_plugins"),
)
LAYER_OF = {package: number for number, layer in enumerate(LAYERS) for package in layer}
PROGRAMS = {"train", "evaluate", "compare", "share", "tune"}
#: The modules of agent.command that import Hydra, and those that handle its trees of options.
COMMAND_HYDRA = {
    f"agent.command.{name}"
    for name in ("arguments", "composing", "config_errors", "jobs", "launching", "overrides", "presets", "watching")
}
COMMAND_TREES = {f"agent.command.{name}" for name in ("composing", "config_errors", "launching", "watching")}
#: The module in which Hydra looks for the launcher.
PLUGINS = {"hydra_plugins.noisy_dqn_ray"}
#: The modules of the comparison of runs that draw.
DRAWING = ("canvas", "figures", "score_figures")
#: Exactly these files import each package, anywhere in them. Any file of `envs` may import Gymnasium besides.
RESERVED: dict[str, set[str]] = {
    "wandb": {"agent.records.wandb_run"},
    "hydra": {*PROGRAMS, *COMMAND_HYDRA, *PLUGINS},
    "omegaconf": {*PROGRAMS, *COMMAND_TREES, *PLUGINS},
    "gymnasium": {
        *("agent.running.export.program", "agent.running.export.inputs"),
        *("agent.running.distributed.chunk", "agent.running.distributed.collector"),
    },
    "ray": {"agent.running.distributed.cluster"},
    "optuna": {"agent.running.tuning.study"},
    "matplotlib": {
        "agent.records.drawing",
        "agent.records.plots",
        *(f"agent.records.comparison.{name}" for name in DRAWING),
    },
}

#: Modules that run code from data, or have a global random state.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "random", "runpy"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "importlib.import_module", "torch.load", "torch.save", "np.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "hydra.utils.instantiate", "hydra.utils.get_class",
}  # fmt: skip
#: Environments may draw from the global states. One file seeds them and hands them back; it draws nothing from them.
GLOBAL_STATES = {
    "envs.global_random": {"random", "np.random.seed", "np.random.get_state", "np.random.set_state"},
    "agent.common.global_torch": {"torch.default_generator"},
}
#: Modules that the user names on the command line may be imported; only the command line can reach this (see below).
COMMAND_LINE_ONLY = {"agent.command.imports": {"importlib.import_module"}}
#: The classes of np.random that hold a state of their own.
OWN_STATE = {"Generator", "SeedSequence", "PCG64", "SFC64", "Philox", "BitGenerator"}
#: The functions of torch that draw; each call must name its generator.
DRAWS = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "multinomial",
    "bernoulli", "poisson", "uniform_", "normal_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_",
    "geometric_", "dropout",
}  # fmt: skip


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = {
    name_of(path): path
    for path in [
        *ROOT.glob("agent/**/*.py"),
        *ROOT.glob("envs/**/*.py"),
        *ROOT.glob("hydra_plugins/*.py"),
        *(ROOT / f"{name}.py" for name in PROGRAMS),
    ]
    if path.name != "__init__.py"
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in a tree; `from agent import x` is agent.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            module = node.module or ""
            if (ROOT / module.replace(".", "/")).is_dir():
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


@cache
def edges(name: str) -> set[str]:
    return {module for module in imported(TREES[name]) if module.split(".")[0] in ("agent", "envs")}


@cache
def third_party(name: str) -> set[str]:
    return {module.split(".")[0] for module in imported(TREES[name])} - {"agent", "envs"}


def reach(name: str, seen: set[str] | None = None) -> set[str]:
    """A file and all files that it imports directly or indirectly."""
    seen = set() if seen is None else seen
    if name not in seen:
        seen.add(name)
        for other in edges(name):
            reach(other, seen)
    return seen


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of attributes, and '' for other nodes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}" if dotted(node.value) else ""
    return ""


def test_the_files_are_seen() -> None:
    assert {"agent.learning.dqn", "agent.noise.layers", "envs.make", "train", "evaluate"} <= set(FILES)


def package_of(name: str) -> str:
    """The package of LAYERS that contains a file; a program is a package of its own."""
    return name if name in LAYER_OF else ".".join(name.split(".")[: 1 if name.startswith(("envs", "hydra_")) else 2])


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_imports_from_layers_below_and_from_its_own_package(name: str) -> None:
    own = package_of(name)
    assert own in LAYER_OF, f"{name} is in none of these packages"
    wrong = {
        other for other in edges(name) if package_of(other) != own and LAYER_OF[package_of(other)] >= LAYER_OF[own]
    }
    assert not wrong, f"{name} may not import {sorted(wrong)}"


def test_a_file_has_at_most_250_lines() -> None:
    """CONTRIBUTING.md has this rule."""
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > 250} == {}


def test_every_folder_of_the_house_is_a_package_which_a_wheel_then_holds() -> None:
    folders = {path.parent for top in ("agent", "envs") for path in (ROOT / top).rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


#: Code that asks for the kind of an array, or for the way in which a run is computed.
SWITCHES = re.compile(r"isinstance\([^()]*,[^()]*\b(Tensor|ndarray)\b|on_numpy|\.fits\(|\.graphs\b|numpy_policy")
#: Modules that may ask: arrays, saved files, seeds, and the construction of the plan.
MAY_SWITCH = {
    *("agent.common.arrays", "agent.common.tensor_file", "agent.common.seeding", "agent.records.encoding"),
    *("agent.records.schema", "agent.running.build"),
}


def test_only_compute_and_arrays_ask_how_something_is_computed() -> None:
    asking = {name for name, path in FILES.items() if SWITCHES.search(path.read_text(encoding="utf-8"))}
    assert {name for name in asking if not name.startswith(("agent.compute.", "envs."))} <= MAY_SWITCH
    assert asking & {"agent.common.arrays", "agent.compute.plan"}, "the search finds nothing"


def test_environments_stand_on_what_everybody_needs_alone() -> None:
    for name in FILES:
        if name.startswith("envs."):
            assert {package_of(other) for other in edges(name)} <= {"envs", "agent.common"}, name


def test_no_circle() -> None:
    for name in FILES:
        for other in edges(name):
            assert name not in reach(other), f"{name} and {other} import each other"


@pytest.mark.parametrize("package", sorted(RESERVED))
def test_packages_that_only_some_files_may_import(package: str) -> None:
    users = {name for name in FILES if package in third_party(name)}
    users = {name for name in users if not (package == "gymnasium" and name.startswith("envs."))}
    assert users == RESERVED[package]


def test_environments_reach_no_torch_and_the_agent_no_environments() -> None:
    for name in FILES:
        everything = {package for file in reach(name) for package in third_party(file)}
        if name.startswith("envs."):
            assert not everything & {"torch", "wandb", "hydra", "omegaconf"}, name
        elif name in (
            "agent.learning.dqn",
            "agent.networks.build",
            "agent.replay.ring",
            "agent.config.run",
            "agent.records.checkpoint",
        ):
            assert not everything & {"gymnasium", "wandb", "hydra", "omegaconf"}, name


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_runs_code_from_data(name: str) -> None:
    assert not third_party(name) & FORBIDDEN_MODULES - GLOBAL_STATES.get(name, set())
    calls = {dotted(node.func) for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)}
    assert calls & FORBIDDEN_CALLS <= COMMAND_LINE_ONLY.get(name, set())
    assert not {call.removeprefix("numpy.") for call in calls} & {"load"}
    loads = [call for call in calls if call.split(".")[-1] in ("load", "loads")]
    assert set(loads) <= {"json.load", "json.loads", "safetensors.torch.load"}, loads


def test_only_the_command_line_imports_by_name() -> None:
    assert {name for name in FILES if "agent.command.imports" in edges(name)} == {
        "agent.command.composing",
        "agent.command.tuning",
    }
    assert {name for name in FILES if "agent.command.composing" in edges(name)} <= {
        *PROGRAMS,
        "agent.command.functions",
        "agent.command.watching",
        "agent.command.tuning",
    }


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_composes_and_calls(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 80


def global_randomness(tree: ast.AST) -> list[str]:
    """Uses of global random states, with their lines."""
    return [
        f"{fault}, line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.expr)
        for fault in faults(node)
    ]


def faults(node: ast.expr) -> Iterator[str]:
    name = dotted(node)
    parts = name.split(".")
    if parts[:2] in (["np", "random"], ["numpy", "random"]) and len(parts) > 2 and parts[2] not in OWN_STATE:
        yield name
    if name in ("torch.manual_seed", "torch.seed", "torch.set_rng_state", "torch.default_generator"):
        yield name
    if parts[:2] in (["torch", "random"], ["nn", "init"]) or name.endswith(("cuda.manual_seed", "manual_seed_all")):
        yield name
    if isinstance(node, ast.Call):
        function = dotted(node.func) or (node.func.attr if isinstance(node.func, ast.Attribute) else "")
        draws = function.split(".")[-1] in DRAWS and (function.startswith("torch.") or function.endswith("_"))
        if draws and "generator" not in {keyword.arg for keyword in node.keywords}:
            yield f"{function} without a generator"
        if function.endswith(".PCG64") and not node.args:
            yield f"{function} seeded by the clock"


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_global_randomness(name: str) -> None:
    found = {fault.partition(",")[0] for fault in global_randomness(TREES[name])}
    assert found <= GLOBAL_STATES.get(name, set())


def test_the_one_file_that_may_touch_global_states_draws_nothing_from_them() -> None:
    calls = {dotted(node.func) for node in ast.walk(TREES["envs.global_random"]) if isinstance(node, ast.Call)}
    assert {call for call in calls if call.startswith("random.")} == {
        "random.seed",
        "random.getstate",
        "random.setstate",
    }


@pytest.mark.parametrize(
    "line",
    [
        "np.random.rand(3)",
        "np.random.seed(0)",
        "numpy.random.default_rng()",
        "torch.manual_seed(0)",
        "torch.cuda.manual_seed_all(0)",
        "torch.randn(3)",
        "x.uniform_(0, 1)",
        "x.abs().normal_()",
        "nn.init.uniform_(w)",
        "torch.randint(3, (2,), device=device)",
        "np.random.PCG64()",
    ],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert global_randomness(ast.parse(line))


def test_the_search_lets_pass_what_has_a_state_of_its_own() -> None:
    fine = "np.random.Generator(np.random.PCG64(0)).random(3); torch.randn(3, generator=g); g.manual_seed(3)"
    assert not global_randomness(ast.parse(fine))
