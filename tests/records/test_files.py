"""Files are written whole, and never through a link."""

import json
import signal
import subprocess
import sys

import pytest

from fa_jax.records import files
from fa_jax.records.files import whole, write_json, write_text


@pytest.fixture
def linked(tmp_path):
    """A file that lies outside, and a link to it."""
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    link = tmp_path / "comparison.csv"
    link.symlink_to(outside)
    return link, outside


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.pdf"
    write_text(path, "old")

    def fail():
        with whole(path) as file:
            file.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [other.name for other in tmp_path.iterdir()] == ["a.pdf"]
    assert path.read_text() == "old"


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pdf"
    write_text(path, "old")
    script = (
        "import os, pathlib, sys\nfrom fa_jax.records.files import whole\n"
        "with whole(pathlib.Path(sys.argv[1])) as file:\n"
        " file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_link_is_replaced_and_its_target_left_alone(linked):
    link, outside = linked
    write_json(link, {"a": 1})
    assert not link.is_symlink()
    assert link.read_text() == '{\n "a": 1\n}\n'
    assert outside.read_text() == "mine"


def test_a_link_at_the_name_of_the_temporary_file_is_not_followed(linked, monkeypatch):
    link, outside = linked
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 16)
    temporary = link.with_name(f".{'0' * 16}.tmp")
    temporary.symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_text(link, "new")
    assert outside.read_text() == "mine"


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    write_text(tmp_path / "a", "")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_undecodable_bytes_of_an_argument_become_what_they_are_in_utf_8(tmp_path):
    command = [b"a=\xc3\xa9".decode("ascii", "surrogateescape"), b"a=\xff".decode("utf-8", "surrogateescape"), "\ud800"]
    write_json(tmp_path / "a.json", command)
    assert json.loads((tmp_path / "a.json").read_text()) == ["a=é", "a=\ufffd", "?"]


def test_text_is_utf_8(tmp_path):
    write_text(tmp_path / "a", "Ø –")
    assert (tmp_path / "a").read_bytes() == "Ø –".encode()


def test_what_a_killed_write_leaves_is_known_by_its_name(tmp_path):
    with files.whole(tmp_path / "a.json"):
        (left,) = tmp_path.iterdir()
        assert files.is_temporary(left.name)
    assert not files.is_temporary("a.json")
    assert not files.is_temporary(".notes.tmp")
