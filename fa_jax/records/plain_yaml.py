"""Plain YAML as configs are recorded: one mapping of text to values, without tags, anchors and aliases.

It is built from the events of the parser, which is in C where PyYAML has it: loading would expand aliases and make
objects of tags, and is slow.
"""

import functools
import re
from typing import Any

import yaml

DEEPEST = 32
"""The most lists and mappings within each other."""
PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Values(yaml.SafeLoader):
    """Resolves scalars as OmegaConf does, which wrote them: `1e-3` is a number, and dates are text."""


_Values.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBER = r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"
_Values.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER), list("-+0123456789"))


class _Builder:
    """Lists and mappings that events open, fill and close."""

    def __init__(self):
        self.root: dict[str, Any] | None = None
        self._open: list[Any] = []
        self._keys: list[str | None] = []
        """The key whose value comes next, for each open container."""

    def take(self, event: Any) -> None:
        """Takes the next event of the parser."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(f"has an anchor or an alias in line {line}")
        if getattr(event, "tag", None):
            raise ValueError(f"has the tag {event.tag} in line {line}")
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.ScalarEvent):
            self._add(_scalar(event.value, event.implicit[0]), line)
        elif isinstance(event, yaml.CollectionStartEvent):
            node = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._add(node, line)
            self._open.append(node)
            self._keys.append(None)
            if len(self._open) > DEEPEST:
                raise RecursionError

    def _add(self, node: Any, line: int) -> None:
        """Adds a value to the innermost container, or takes it for the key of the next."""
        if not self._open:
            if self.root is not None or not isinstance(node, dict):
                raise ValueError("is no mapping of names to values")
            self.root = node
        elif isinstance(container := self._open[-1], list):
            container.append(node)
        elif (key := self._keys[-1]) is not None:
            container[key], self._keys[-1] = node, None
        elif not isinstance(node, str):
            raise ValueError(f"has a key that is no text in line {line}")
        elif node in container:
            raise ValueError(f"has {node} twice, again in line {line}")
        else:
            self._keys[-1] = node


def read(text: str) -> dict[str, Any]:
    """Returns the content of plain YAML.

    Raises:
      ValueError: if it is not plain, or no mapping.
      RecursionError: if it is deeper than `DEEPEST`.
      yaml.YAMLError: if it cannot be parsed.
    """
    builder = _Builder()
    for event in yaml.parse(text, Loader=PARSER):
        builder.take(event)
    if builder.root is None:
        raise ValueError("is no mapping of names to values")
    return builder.root


@functools.lru_cache(maxsize=2**14)
def _scalar(text: str, is_plain: bool) -> Any:
    """Returns the value of a scalar: of plain text what YAML makes of it, of quoted text itself."""
    if not is_plain:
        return text
    loader = _Values("")
    return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))
