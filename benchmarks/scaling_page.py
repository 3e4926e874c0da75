"""Makes docs/SCALING.md from the measurements of scaling_out.py: tables, and the arithmetic for larger clusters."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import reporting

#: The cluster of the computation: each actor has one environment that takes 2 ms per step.
STEP, NETWORK, NODE, IN_FLIGHT = 0.002, 1.25e9, 16, 3  # s; bytes/s; actors; chunks
#: Updates per transition of Ape-X (Horgan et al. 2018, §4): its learner makes 19 while 12 500 transitions arrive.
APE_X = 19 / 12_500
WANTED = 0.9  # the fraction of linear scaling to reach
HEAD = (
    *("ms a step", "actors", "steps/s", "linear", "of linear", "learner's limit", "cores at linear", "limit"),
    *("learner waits", "actors wait", "staleness", "cores busy", "µs: learner", "actors", "Ray"),
)
REMEDIES = {
    "updates": "The updates are the first limit. A GPU makes them faster (`device=cuda`), and a lower "
    "`agent.replay_ratio` needs fewer of them: Ape-X learns from far fewer samples than it collects. Fewer updates "
    "with larger batches cost less for each sample.",
    "chunks": "Storing chunks is the first limit. A chunk costs nearly the same for any number of environments, so "
    "several environments per actor (a larger `num_envs`) reduce the number of chunks. So does a larger "
    "`collect.chunk`, which makes weights older. For more actors the replay would have to be split among several "
    "processes, each with the rings of some actors. This project has no such replay.",
    "network": "The network of the learner's machine is the first limit. Observations should be small: integers "
    "instead of floats, and smaller images; stacked frames are already sent once only. For more actors the replay "
    "would have to be split among several machines, each of which samples batches for the learner. This project has "
    "no such replay.",
}


class Need(NamedTuple):
    """A resource of the learner's side, per second: how much some actors need, and its limit."""

    name: str
    needed: float
    limit: float

    @property
    def part(self) -> float:
        """The needed fraction of the limit."""
        return self.needed / self.limit


def needs(learner: Mapping[str, Any], actors: int) -> list[Need]:
    """The updates, chunks and bytes per second that actors need, computed for one environment each."""
    steps = actors / STEP
    updates = steps * learner["replay_ratio"]
    weights = min(updates, learner["updates"]) / learner["publish"] * 4 * learner["parameters"] * nodes(actors)
    return [
        Need("updates", updates, learner["updates"]),
        Need("chunks", steps / learner["chunk"], learner["intake"] / learner["steps_of_chunk"]),
        Need("network", steps * learner["wire"] + weights, NETWORK),
    ]


def nodes(actors: int) -> int:
    """The number of machines for some actors; each machine gets one copy of the weights."""
    return -(-actors // NODE)


def store(learner: Mapping[str, Any], actors: int) -> float:
    """The bytes of all chunks and weights in transit."""
    return actors * IN_FLIGHT * learner["chunk"] * learner["wire"] + IN_FLIGHT * actors * 4 * learner["parameters"]


def first_to_break(learner: Mapping[str, Any], actors: int) -> Need:
    """The resource that reaches its limit first."""
    return max(needs(learner, actors), key=lambda need: need.part)


def linear_parts(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The speed of each row as a fraction of linear scaling, which is the speed of one actor times their number."""
    one = {row["milliseconds"]: row["steps"] / row["actors"] for row in rows if row["actors"] == 1}
    return [row["steps"] / (row["actors"] * one[row["milliseconds"]]) for row in rows]


def linear_of(row: Mapping[str, Any], part: float) -> float:
    """Linear scaling at the number of actors of a row, in steps per second."""
    return float(row["steps"] / part)


def cores_for(linear: float, limit: Mapping[str, float]) -> float:
    """The cores that playing and learning alone need at a speed. The costs of Ray are no excuse and are left out."""
    return linear * (limit["playing"] + limit["learning"])


def limited_by(linear: float, limit: Mapping[str, float], cores: int) -> str:
    """The limit of the speed of a row, from measurements of its parts by themselves."""
    if linear >= limit["steps"]:
        return "the learner"
    return "the machine's cores" if cores_for(linear, limit) >= cores else "the environments"


def page(result: Mapping[str, Any]) -> str:
    """The text of the page."""
    about = result["machine"]
    made = (
        f"`{result['command']}`, on {about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, "
        f"{about['system']}, Python {about['python']}, "
        f"{', '.join(f'{package} {version}' for package, version in result['versions'].items())}; "
        f"load of the machine before it began: {about['load']}."
    )
    if (turns := result["turns"]) > 1:
        made += f" Each row below is the fastest of {turns} turns, as other work on the machine only slows it down."
    return (
        "\n\n".join(
            [
                "# How collection scales",
                "`benchmarks/scaling_out.py` makes this page from its measurements in "
                "`docs/performance/scaling_out.json`. [CLUSTER.md](CLUSTER.md) explains how collection works, and its "
                "options.",
                made,
                *_actors(result["actors"], result["limits"], about["cores"]),
                *_learner(result["learner"]),
                *_overhead(result["overhead"]),
                *_paper(result["learner"]),
            ]
        )
        + "\n"
    )


def _actors(rows: Sequence[Mapping[str, Any]], limits: Sequence[Mapping[str, float]], cores: int) -> list[str]:
    parts, limit_of = linear_parts(rows), {limit["actors"]: limit for limit in limits}
    lines: list[list[str]] = []
    free: list[float] = []
    for row, part in zip(rows, parts, strict=True):
        linear, limit = linear_of(row, part), limit_of[row["actors"]]
        by = limited_by(linear, limit, cores)
        free += [part] if by == "the environments" else []
        lines.append(
            [
                *(f"{row['milliseconds']:g}", f"{row['actors']}", f"{row['steps']:,.0f}", f"{linear:,.0f}"),
                *(f"{part:.0%}", f"{limit['steps']:,.0f}", f"{cores_for(linear, limit):.1f}", by),
                *(f"{row[name]:.0%}" for name in ("learner_wait", "actor_wait")),
                *(f"{row['staleness']:.0f}", f"{row['busy']:.0%}"),
                *(f"{1e6 * row[name]:.0f}" for name in ("learner_cpu", "actors_cpu", "ray_cpu")),
            ]
        )
    said = (
        f"In these rows the least part of linear is **{min(free):.0%}**; the goal is {WANTED:.0%}."
        if free
        else "There is no such row."
    )
    playing, learning = (1e6 * min(limit[name] for limit in limits) for name in ("playing", "learning"))
    return [
        "## Actors whose environments sleep",
        f"Each actor has one environment, whose step sleeps; learner and actors share {cores} cores. Linear scaling "
        "is the speed of one actor times the number of actors. The learner's limit is its speed with stand-ins for "
        "this number of actors, which have always played already, and with all cores for itself. Cores at linear are "
        "those that playing and learning need at that speed, each measured by itself. The "
        "environments are the limit if linear is below the learner's limit and needs fewer cores than there are. "
        f"{said}",
        reporting.table(HEAD, lines),
        "Waits are fractions of the time, and staleness is in updates. The last three columns are microseconds of "
        "processor time a step: of the learner's process, of the actors, and of Ray's own processes. By themselves, "
        f"playing a step takes {playing:.0f} µs, and storing it and making the due updates {learning:.0f} µs. The rest "
        "are Ray's calls, and processes that wake up and find other data in the caches.",
    ]


def _learner(learners: Mapping[str, Any]) -> list[str]:
    chunk = max(row["chunk"] for row in learners.values())
    table = reporting.table(
        [
            "task",
            "takes in, steps/s",
            "learns, updates/s",
            "both, steps/s",
            "updates a step",
            "bytes a step",
            "on the wire",
        ],
        [
            [
                *(name, f"{row['intake']:,.0f}", f"{row['updates']:,.0f}", f"{row['both']:,.0f}"),
                *(f"{row['replay_ratio']:g}", f"{row['bytes']:.0f}", f"{row['wire']:.0f}"),
            ]
            for name, row in learners.items()
        ],
    )
    return [
        "## The learner's limit",
        "Here stand-ins for actors hand the learner chunks that one actor has played, as fast as it takes them from "
        "Ray's store, with the options that each task's preset had at the time: the table shows its replay ratio as "
        f"updates a step, and a chunk had {chunk} vector steps. The column of both is the whole loop; learning alone "
        "was measured at another time. Bytes a step are those of the arrays of a chunk per transition, and bytes on "
        "the wire those of the pickle that Ray sends.",
        table,
    ]


def _overhead(tasks: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, found in tasks.items():
        local, ray = (sum(found[kind]) / len(found[kind]) for kind in ("local", "ray"))
        rows.append([name, reporting.spread(found["local"]), reporting.spread(found["ray"]), f"{ray / local:.2f}"])
    table = reporting.table(["task", "in one process, steps/s", "one actor, steps/s", "ratio"], rows)
    return [
        "## One actor, and none",
        "The table compares `collect=ray collect.actors=1` with the same run in one process, measured in turns: "
        "median (least … greatest). The actor plays while the learner learns, so on two cores the ratio may be above "
        "1.",
        table,
    ]


def _paper(learners: Mapping[str, Any]) -> list[str]:
    rows, chunk = [], max(learner["chunk"] for learner in learners.values())
    for name, learner in learners.items():
        for actors in (100, 1000):
            updates, chunks, network = needs(learner, actors)
            rows.append(
                [
                    *(name, f"{actors:,}", f"{nodes(actors)}", f"{actors / STEP:,.0f}"),
                    *(f"{need.needed:,.0f} ({need.part:.1%})" for need in (updates, chunks)),
                    f"{network.needed / 1e6:,.1f} ({network.part:.1%})",
                    f"{store(learner, actors) / 2**20:,.0f}",
                ]
            )
    table = reporting.table(
        ["task", "actors", "machines", "steps/s", "updates/s", "chunks/s", "network, MB/s", "store, MiB"], rows
    )
    return [
        "## On paper: 100 and 1 000 actors",
        f"These numbers are computed, not measured. Each actor has one environment whose step takes {STEP * 1000:g} "
        f"ms, and plays chunks of {chunk} steps. A machine has {NODE} actors and gets each version of the weights "
        f"once. The learner's machine has a network of {NETWORK * 8 / 1e9:g} Gbit/s. The percentages are fractions of "
        "the learner's limit above, or of the network; more than 100 % is not possible. The limit of chunks is that "
        "of the chunks above, which are larger: they have the steps of several environments. The store holds the "
        "chunks and weights in transit.",
        table,
        *(_breaks(name, learner) for name, learner in learners.items()),
        "Ray itself has run with thousands of actors. The learner waits for all of them with one call (`ray.wait`), "
        "whose cost for hundreds of references was not measured.",
    ]


def _breaks(name: str, learner: Mapping[str, Any]) -> str:
    sparse = {**learner, "replay_ratio": APE_X}
    return (
        f"**{name}**: the maximum number of actors is {_limits(learner)}. "
        f"{REMEDIES[first_to_break(learner, 1000).name]} With the ratio of Ape-X, about 19 updates for 12,500 "
        f"transitions, the maximum is {_limits(sparse)}."
    )


def _limits(learner: Mapping[str, Any]) -> str:
    limits = sorted((1000 / need.part, need.name) for need in needs(learner, 1000))
    return ", ".join(f"{actors:,.0f} ({what})" if actors >= 10 else f"{actors:.1f} ({what})" for actors, what in limits)
