"""What the runs of a comparison are called: by their rule, and by what else their configs differ in."""

from collections.abc import Sequence
from typing import Any

from fa_jax.records.reader import Run

NAMES = {
    **{name: name.upper() for name in ("bp", "fa", "dfa", "ifa", "drtp")},
    **{"sdfa": "sDFA", "usf": "uSF", "frsf": "frSF", "brsf": "brSF"},
    **{"kolen_pollack": "Kolen-Pollack", "direct_kolen_pollack": "direct Kolen-Pollack"},
    **{"weight_mirror": "weight mirror", "node_perturbation": "node perturbation"},
    **{"associated_learning": "associated learning", "forward_forward": "forward-forward"},
}
GROUPS = ("architecture", "loss", "optimizer")


def labels(runs: Sequence[Run]) -> list[str]:
    """Returns a label for each run.

    Where every run is an experiment of its own, its name without what all begin with. Else the rule, the task where
    there are several, then every option in which runs of one rule on one task differ: options that each rule or task
    has values of its own for tell no more than its name does.
    """
    experiments = [run.choices.get("experiment") or "" for run in runs]
    if all(experiments) and len(set(experiments)) == len(runs) > 1:
        words = [name.split("_") for name in experiments]
        shared = sum(len(set(column)) == 1 for column in zip(*words, strict=False))
        return ["_".join(name[shared:]) or "_".join(name) for name in words]
    described = [{group: run.choices[group] for group in GROUPS} | flatten(run.config) for run in runs]
    rules, tasks = ([run.choices[group] for run in runs] for group in ("rule", "task"))
    texts = []
    for rule, task, options in zip(rules, tasks, described, strict=True):
        kin = [other for *names, other in zip(rules, tasks, described, strict=True) if names == [rule, task]]
        differing = [key for key in options if any(other.get(key) != options[key] for other in kin)]
        groups = [key for key in differing if key in GROUPS]
        # Where a whole group was exchanged, its name says more than the values that came with it.
        single = [key for key in differing if key.partition(".")[0] not in groups]
        parts = [task] if len(set(tasks)) > 1 else []
        parts += [options[key] for key in groups]
        parts += [f"{key.rpartition('.')[2]}={options[key]}".replace(" ", "") for key in single]
        texts.append(" ".join([NAMES.get(rule, rule), *parts]))
    return texts


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Options by dotted name, without what says nothing about the training."""
    flat = {}
    for key, value in config.items():
        if prefix == "" and key in ("choices", "devices", "checkpoint", "checkpoint_every", "seeds_per_batch"):
            continue
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
