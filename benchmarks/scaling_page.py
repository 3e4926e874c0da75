"""The page docs/SCALING.md, made of the numbers of scaling_out.py: tables, and the arithmetic for larger clusters."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import reporting

#: The cluster on paper: an environment that takes 2 ms a step, one in each actor, and the network of a machine.
STEP, CHUNK, NETWORK, NODE, IN_FLIGHT = 0.002, 16, 1.25e9, 16, 3  # s; vector steps; bytes/s; actors; chunks
#: Updates a transition of Ape-X (Horgan et al. 2018, §4): its learner makes 19 while 12 500 transitions arrive.
APE_X = 19 / 12_500
WANTED = 0.9  # of linear
REMEDIES = {
    "updates": "The updates break first. A GPU makes them faster (`device=cuda`), and a lower `agent.replay_ratio` "
    "asks for "
    "fewer: Ape-X learns from far fewer samples than it collects. Larger batches in fewer updates cost less for each "
    "sample.",
    "chunks": "Storing chunks breaks first. A chunk costs nearly the same whatever the number of environments in it, "
    "so several "
    "environments in an actor (a larger `num_envs`) divide the number of chunks; so does a larger `collect.chunk`, at "
    "the price of older weights. Beyond that the replay has to be shared out among several processes, each with the "
    "rings "
    "of some actors, which this project does not have.",
    "network": "The network of the learner's machine breaks first. Observations should be small: whole numbers in "
    "place of "
    "floats, and smaller pictures; stacked frames travel once already. Beyond that the replay has to be shared out "
    "among several machines, each of which samples batches for the learner, which this project does not have.",
}


class Need(NamedTuple):
    """What some actors need of the learner's side, each per second, and what there is of it."""

    name: str
    needed: float
    limit: float

    @property
    def part(self) -> float:
        """1 is all that there is."""
        return self.needed / self.limit


def needs(learner: Mapping[str, Any], actors: int) -> list[Need]:
    """Updates, chunks and bytes per second that actors need, with one environment each on paper."""
    steps = actors / STEP
    updates = steps * learner["replay_ratio"]
    weights = min(updates, learner["updates"]) / learner["publish"] * 4 * learner["parameters"] * nodes(actors)
    return [
        Need("updates", updates, learner["updates"]),
        Need("chunks", steps / CHUNK, learner["intake"] / learner["steps_of_chunk"]),
        Need("network", steps * learner["wire"] + weights, NETWORK),
    ]


def nodes(actors: int) -> int:
    """Machines for so many actors; each takes one copy of the weights."""
    return -(-actors // NODE)


def store(learner: Mapping[str, Any], actors: int) -> float:
    """Bytes of chunks and weights under way at once."""
    return actors * IN_FLIGHT * CHUNK * learner["wire"] + IN_FLIGHT * actors * 4 * learner["parameters"]


def first_to_break(learner: Mapping[str, Any], actors: int) -> Need:
    """What is short first."""
    return max(needs(learner, actors), key=lambda need: need.part)


def linear_parts(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The steps per second of each row as a part of those of one actor, times the number of actors."""
    one = {row["milliseconds"]: row["steps"] / row["actors"] for row in rows if row["actors"] == 1}
    return [row["steps"] / (row["actors"] * one[row["milliseconds"]]) for row in rows]


def limited_by(row: Mapping[str, Any]) -> str:
    """What keeps a row from more steps."""
    if row["busy"] >= WANTED:
        return "the machine's cores"
    return "the learner" if row["learner_wait"] < 1 - WANTED else "the environments"


def page(result: Mapping[str, Any]) -> str:
    """The whole page."""
    about = result["machine"]
    made = (
        f"`{result['command']}`, on {about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, "
        f"{about['system']}, Python {about['python']}, "
        f"{', '.join(f'{package} {version}' for package, version in result['versions'].items())}; "
        f"load of the machine before it began: {about['load']}."
    )
    return (
        "\n\n".join(
            [
                "# How collection scales",
                "Made by `benchmarks/scaling_out.py` from its measurements, which are in "
                "`docs/performance/scaling_out.json`. "
                "How collection works, and its options, are in [CLUSTER.md](CLUSTER.md).",
                made,
                *_actors(result["actors"], about["cores"]),
                *_learner(result["learner"]),
                *_overhead(result["overhead"]),
                *_paper(result["learner"]),
            ]
        )
        + "\n"
    )


def _actors(rows: Sequence[Mapping[str, Any]], cores: int) -> list[str]:
    parts = linear_parts(rows)
    free = [part for row, part in zip(rows, parts, strict=True) if limited_by(row) == "the environments"]
    least = min(free) if free else None
    said = (
        "In no row are the environments the limit."
        if least is None
        else f"Where the environments are the limit, the least part of linear is **{least:.0%}**; at least "
        f"{WANTED:.0%} is wanted."
    )
    table = reporting.table(
        [
            "ms a step",
            "actors",
            "steps/s",
            "of linear",
            "learner waits",
            "actors wait",
            "staleness",
            "cores busy",
            "limit",
        ],
        [
            [
                *(f"{row['milliseconds']:g}", f"{row['actors']}", f"{row['steps']:,.0f}", f"{part:.0%}"),
                *(f"{row[name]:.0%}" for name in ("learner_wait", "actor_wait")),
                *(f"{row['staleness']:.0f}", f"{row['busy']:.0%}", limited_by(row)),
            ]
            for row, part in zip(rows, parts, strict=True)
        ],
    )
    return [
        "## Actors whose environments sleep",
        f"Each actor has one environment, whose step sleeps; learner and actors share {cores} cores. Linear is the "
        f"number of "
        "actors times the steps per second of one. Waits are parts of the time; staleness is in updates. The cores "
        "are the "
        f"limit where they are busy for {WANTED:.0%} of the time, and the learner is where it waits for less than a "
        f"tenth of "
        f"it. {said}",
        table,
    ]


def _learner(learners: Mapping[str, Any]) -> list[str]:
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
        "Stand-ins for actors give the learner chunks that one actor has played, as fast as it takes them out of "
        "Ray's store, "
        "with the options of each task's preset. Both is the whole loop at the replay ratio of the preset. Bytes are "
        "those of "
        "a chunk's arrays for each transition; on the wire are those of the pickle that Ray sends.",
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
        "`collect=ray collect.actors=1` beside the same run in one process, in turns: median (least … greatest). The "
        "actor "
        "plays while the learner learns, so a ratio above 1 is possible where there are two cores.",
        table,
    ]


def _paper(learners: Mapping[str, Any]) -> list[str]:
    rows = []
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
        f"Computed, not measured: each actor has one environment whose step takes {STEP * 1000:g} ms and plays "
        f"chunks of {CHUNK} "
        f"steps; a machine has {NODE} actors and takes each version of the weights once; the learner's machine has a "
        f"network "
        f"of {NETWORK * 8 / 1e9:g} Gbit/s. In brackets: the part of the learner's own limit above, or of the "
        f"network; beyond "
        "100 % it breaks. The store holds the chunks and weights under way.",
        table,
        *(_breaks(name, learner) for name, learner in learners.items()),
        "Ray itself has been run with thousands of actors; a learner waits for all of them by one call (`ray.wait`), "
        "whose "
        "price for hundreds of references is not measured here.",
    ]


def _breaks(name: str, learner: Mapping[str, Any]) -> str:
    sparse = {**learner, "replay_ratio": APE_X}
    return (
        f"**{name}**: the most actors are, {_limits(learner)}. {REMEDIES[first_to_break(learner, 1000).name]} "
        f"With Ape-X's own ratio, about 19 updates for 12,500 transitions, the most actors are, {_limits(sparse)}."
    )


def _limits(learner: Mapping[str, Any]) -> str:
    limits = sorted((1000 / need.part, need.name) for need in needs(learner, 1000))
    return ", ".join(
        f"by {what}, {actors:,.0f}" if actors >= 10 else f"by {what}, {actors:.1f}" for actors, what in limits
    )
