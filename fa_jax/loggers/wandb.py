"""Weights & Biases: one of its runs for each run, online or offline."""

import uuid

from fa_jax.checks import choose
from fa_jax.loggers.logger import Opener, Tracker, needed, number_of

MODES: dict[str, None] = dict.fromkeys(("online", "offline", "disabled"))


def wandb(*, project: str, entity: str | None, mode: str) -> Opener:
    """Returns what opens a `Tracker` that makes one run there, its local files in `wandb/` in the run's folder.

    A run that is resumed goes on in the same one.

    Args:
      project, entity: where it belongs there; entity None: the user's own.
      mode: online, offline (to be sent later by `wandb sync`) or disabled.

    Raises:
      BadOption: if wandb is not installed, or there is no such mode.
    """
    choose("logger.mode", mode, MODES)
    package = needed("wandb", "wandb")

    def start(folder, config):
        run = package.init(
            id=number_of(folder, lambda: uuid.uuid4().hex[:8]),
            resume="allow",
            project=project,
            entity=entity,
            mode=mode,
            dir=str(folder.absolute()),
            name=str(folder),
            config=dict(config),
            reinit="create_new",
        )
        run.define_metric("*", step_metric="examples")

        def scalars(examples, values):
            run.log({"examples": examples, **values})

        def figure(path):
            run.log({path.stem: package.Image(str(path))})

        return Tracker(scalars, figure, lambda finished: run.finish(exit_code=0 if finished else 1))

    return start
