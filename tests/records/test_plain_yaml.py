"""Plain YAML has the values that OmegaConf gives it, which wrote it, and nothing else is read."""

import pytest
from omegaconf import OmegaConf

from fa_jax.cli.groups import CONF
from fa_jax.records import plain_yaml

SCALARS = ["1e-3", "1e3", "1.5e3", "-1E+5", "1.", "+.5", ".5e-3", ".inf", "-.inf", "1_000", "0x1F", "017", "1:30"]
SCALARS += ["1:30.5", "yes", "Off", "null", "~", "", "2020-01-01", "???", "a b", "1e", "1_0e5", "true", "1.2.3", "1e5x"]
SCALARS += ["'1'", '"a\\n"', "[1, 'b', 2e-1]", "{a: 1, b: [x]}", "|\n  two\n  lines", "1\n  2"]


@pytest.mark.parametrize("text", SCALARS)
def test_a_value_is_that_of_omegaconf(text):
    expected = OmegaConf.to_container(OmegaConf.create(f"a: {text}"))
    got = plain_yaml.read(f"a: {text}")
    assert got == expected
    assert type(got["a"]) is type(expected["a"])


def test_configs_have_the_content_that_omegaconf_gives_them():
    for path in (CONF / "rule").glob("*.yaml"):
        text = path.read_text()
        if not text.startswith("# @package _global_\n#"):
            continue
        assert plain_yaml.read(text) == OmegaConf.to_container(OmegaConf.create(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no mapping of names to values"),
        ("- a", "is no mapping of names to values"),
        ("a: 1\n---\nb: 2", "is no mapping of names to values"),
        ("a: &b 1\nc: *b", "has an anchor or an alias in line 1"),
        ("a: 1\nb: !!python/name:os.system x", "has the tag tag:yaml.org,2002:python/name:os.system in line 2"),
        ("a: 1\nb: 2\na: 3", "has a twice, again in line 3"),
        ("1: a", "has a key that is no text in line 1"),
        ("[a]: b", "has a key that is no text in line 1"),
    ],
)
def test_what_is_not_plain_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        plain_yaml.read(text)


def test_what_is_too_deep_is_refused():
    with pytest.raises(RecursionError):
        plain_yaml.read("a: " + "[" * plain_yaml.DEEPEST + "]" * plain_yaml.DEEPEST)
