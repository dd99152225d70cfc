"""Weights & Biases: one of its runs for each run, online or offline."""

import uuid

from fa_jax.checks import choose
from fa_jax.loggers.logger import Logger, OpenLogger, import_package, run_id

MODES: dict[str, None] = dict.fromkeys(("online", "offline", "disabled"))


def wandb(*, project: str, entity: str | None, mode: str) -> OpenLogger:
    """Returns a function that opens a run of Weights & Biases, with local files in `wandb/` of the run's folder.

    A resumed run continues it.

    Args:
      project, entity: that the run belongs to; entity None: the user's own.
      mode: `online`, `offline` (sent later by `wandb sync`) or `disabled`.

    Raises:
      BadOption: if wandb is not installed, or there is no such mode.
    """
    choose("mode", mode, MODES)
    package = import_package("wandb", "wandb")

    def open_logger(folder, config):
        run = package.init(
            id=run_id(folder, lambda: uuid.uuid4().hex[:8]),
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

        return Logger(scalars, figure, lambda finished: run.finish(exit_code=0 if finished else 1))

    return open_logger
