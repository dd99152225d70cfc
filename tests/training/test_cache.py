"""The persistent compilation cache is on by default, private, and never in the way."""

import warnings
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from fa_jax.training import cache

SETTINGS = ("dir", "max_size")


@pytest.fixture
def no_cache():
    """JAX without a cache, as a new process has it."""
    names = [f"jax_compilation_cache_{name}" for name in SETTINGS]
    names += ["jax_enable_compilation_cache", "jax_persistent_cache_min_compile_time_secs"]
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    with warnings.catch_warnings():
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def enabled(monkeypatch, value):
    monkeypatch.setenv(cache.VARIABLE, str(value))
    cache.enable()
    return jax.config.jax_compilation_cache_dir


def test_the_cache_is_in_a_private_bounded_folder_of_the_processor(no_cache, tmp_path, monkeypatch):
    folder = enabled(monkeypatch, tmp_path / "cache")
    assert Path(folder).parent == tmp_path / "cache"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert jax.config.jax_compilation_cache_max_size == cache.MAX_BYTES


def test_the_cache_is_in_the_users_cache_folder_by_default(no_cache, tmp_path, monkeypatch):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.enable()
    assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "fa_jax" / "programs"))


def test_the_cache_can_be_turned_off(no_cache, monkeypatch):
    assert enabled(monkeypatch, "off") is None


def test_a_cache_that_jax_has_already_is_kept(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    assert before is not None
    assert enabled(monkeypatch, tmp_path) == before


@pytest.mark.parametrize("kind", ["a file", "writable by others"])
def test_a_folder_that_cannot_be_used_costs_one_line(kind, no_cache, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cache"
    if kind == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert enabled(monkeypatch, folder) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compilation cache not used: {folder} cannot be used")


def test_a_damaged_program_costs_one_line_and_is_compiled_anew(no_cache, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cache"
    enabled(monkeypatch, folder)

    def doubled():
        lowered = jax.jit(lambda x: 2.125 * x).lower(1.0)
        with cache.reported():
            return lowered.compile()(1.0)

    assert doubled() == 2.125
    programs = list(folder.rglob("*-cache"))
    assert programs
    for program in programs:
        program.write_bytes(b"garbage")
    assert doubled() == 2.125
    (line,) = capsys.readouterr().err.splitlines()
    assert "is damaged" in line
    assert "it was emptied" in line
    assert not [program for program in programs if program.exists()]
    assert not jax.config.jax_enable_compilation_cache
    assert doubled() == 2.125
    assert capsys.readouterr().err == ""
    jax.config.update("jax_enable_compilation_cache", True)  # as in the next command
    compilation_cache.reset_cache()
    assert doubled() == 2.125
    assert capsys.readouterr().err == ""
    assert list(folder.rglob("*-cache"))


def test_a_damaged_cache_of_jax_itself_is_left_to_jax(no_cache, tmp_path, capsys):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    def tripled():
        lowered = jax.jit(lambda x: 3.125 * x).lower(1.0)
        with cache.reported():
            return lowered.compile()(1.0)

    assert tripled() == 3.125
    for program in tmp_path.rglob("*-cache"):
        program.write_bytes(b"garbage")
    with pytest.warns(UserWarning, match=cache.OF_CACHE):
        assert tripled() == 3.125
    assert jax.config.jax_enable_compilation_cache
    assert capsys.readouterr().err == ""


def test_other_warnings_while_compiling_are_passed_on():
    with pytest.warns(UserWarning, match="unrelated"), cache.reported():
        warnings.warn("unrelated", stacklevel=1)
