"""`fa-jax new`: the files to begin a rule, an architecture, a task or a measure of one's own with."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fa_jax.checks import BadOption, choose
from fa_jax.cli.groups import choices, take_config_dir
from fa_jax.records.files import write_text
from fa_jax.user.text import say

TEMPLATES = Path(__file__).with_name("templates")
KINDS = {"rule": "rule", "architecture": "architecture", "task": "task", "measure": "measure", "metric": "measure"}
"""What can be begun, with its config group."""
OPTIONS = {"package": "mylab"}


def new(words: Sequence[str]) -> None:
    """Writes a Python file and a YAML file, and prints the commands that use them.

    Args:
      words: the kind, its name, and `package=`, the package of the Python file. The YAML file goes to the folder of
        `--config-dir`, or else to `conf`.

    Raises:
      BadOption: if anything in them is wrong, or a file exists already.
    """
    names, options = [], dict(OPTIONS)
    config_dir, others = take_config_dir(words)
    config_dir = config_dir or "conf"
    for word in others:
        option, equals, value = word.partition("=")
        if equals:
            choose("new: an option", option, OPTIONS)
            options[option] = value
        else:
            names.append(word)
    if len(names) != 2:
        raise BadOption(f"needs a kind and a name, as in fa-jax new rule my_rule; got {' '.join(names)!r}", "new")
    kind, name = choose("new", names[0], KINDS), names[1]
    package = options["package"]
    for option, text in (("new: the name", name), ("package", package)):
        if not text.isidentifier() or text != text.lower():
            raise BadOption(f"must be a name in lower case, such as my_rule; got {text!r}", option)
    if name in choices(kind):
        raise BadOption(f"must be another name: fa_jax has {kind}={name} already", "new: the name")
    code, config = Path(package) / f"{name}.py", Path(config_dir) / kind / f"{name}.yaml"
    for path in (code, config):
        if path.exists():
            raise BadOption(f"{path} exists already; choose another name")
    for suffix, path in ((".py.txt", code), (".yaml.txt", config)):
        template = (TEMPLATES / f"{kind}{suffix}").read_text(encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, template.replace("NAME", name).replace("PACKAGE", package))
    if not (code.parent / "__init__.py").exists():
        write_text(code.parent / "__init__.py", "")
    console, command = Console(), f"fa-jax --config-dir {config_dir} trust={package}"
    say(console, f"wrote {code} and {config}")
    say(console, f"check it:  {command.replace('fa-jax', 'fa-jax check')} {kind}={name}")
    more = "" if kind == "task" else " task=digits"
    say(console, f"train it:  {command}{more} {kind}={name}")
