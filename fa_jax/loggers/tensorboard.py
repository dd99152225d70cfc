"""TensorBoard: event files in a run's folder."""

from fa_jax.loggers.logger import Logger, OpenLogger, import_package


def tensorboard() -> OpenLogger:
    """Returns a function that opens event files in `tensorboard/` of a run's folder.

    Raises:
      BadOption: if tensorboardX is not installed.
    """
    package = import_package("tensorboard", "tensorboardX")

    def open_logger(folder, config):
        del config
        writer = package.SummaryWriter(str(folder / "tensorboard"))

        def scalars(examples, values):
            for name, value in values.items():
                writer.add_scalar(name, value, examples)

        def figure(path):
            from matplotlib.image import imread

            writer.add_image(path.stem, imread(path)[..., :3], dataformats="HWC")

        return Logger(scalars, figure, lambda finished: writer.close())

    return open_logger
