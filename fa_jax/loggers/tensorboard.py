"""TensorBoard: event files in a run's folder."""

from fa_jax.loggers.logger import Opener, Tracker, needed


def tensorboard() -> Opener:
    """Returns what opens a `Tracker` that writes event files to `tensorboard/` in the run's folder.

    Raises:
      BadOption: if tensorboardX is not installed.
    """
    package = needed("tensorboard", "tensorboardX")

    def start(folder, config):
        del config
        writer = package.SummaryWriter(str(folder / "tensorboard"))

        def scalars(examples, values):
            for name, value in values.items():
                writer.add_scalar(name, value, examples)

        def figure(path):
            from matplotlib.image import imread

            writer.add_image(path.stem, imread(path)[..., :3], dataformats="HWC")

        return Tracker(scalars, figure, lambda finished: writer.close())

    return start
