"""The rows of BioTorch's comparison of LeNet (Sanfiz, Akrout, 2021), for each of its data sets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.tables.row import Row, Setting, scales

RULES = {"BP": "bp", "FA": "fa", "DFA": "dfa", "uSF": "usf", "brSF": "brsf", "frSF": "frsf"}
DFA = (
    "BioTorch's DFA sends the error through the transposed convolution of a random kernel, which is another rule; this "
)
DFA += "is DFA with a matrix to every unit."
LEFT_OUT = (
    "DFA of a convolution as BioTorch has it: its signal is the same at all inner positions of a map.",
    "ResNet-20 and ResNet-56, whose shortcuts have no weights there; ResNet-18 on ImageNet.",
)


def rows_of(
    setting: Setting,
    fans: Sequence[tuple[int, int]],
    sizes: Sequence[int],
    outputs: int,
    options: Mapping[str, Sequence[str]],
    frozen: Mapping[str, Any],
    blocks: Mapping[str, Any],
    **searched: Any,
) -> Iterator[Row]:
    """Yields the rows of a data set.

    Args:
      setting: of the rows.
      fans: fan-in and fan-out of each layer, the readout included.
      sizes: of the hidden layers, flattened.
      outputs: the number of classes.
      options: of a rule, by label.
      frozen, blocks: keywords of the rows of the two controls.
      **searched: `search` and `search_cost` of the rows of rules.
    """
    uniform = "feedback.distribution=uniform"
    xavier = uniform, f"feedback.scale={scales([(6 / (a + b)) ** 0.5 for a, b in fans[1:]])}"
    direct = uniform, f"feedback.scale={scales([(6 / (n + outputs)) ** 0.5 for n in sizes])}"
    for label, rule in RULES.items():
        feedback = {"BP": (), "DFA": direct}.get(label, xavier)
        note = DFA if label == "DFA" else ""
        yield setting.row(label, f"rule={rule}", *feedback, *options.get(label, ()), note=note, **searched)
    yield setting.row("frozen hidden layers", "rule=shallow", **frozen)
    yield setting.row("frozen blocks", "rule=frozen_blocks", **blocks)
