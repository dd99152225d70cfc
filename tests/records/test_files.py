"""Files are written whole, and never through a link."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fa_jax.records import files
from fa_jax.records.files import whole, write_json, write_text

KILLED = """
import os, pathlib, sys
from fa_jax.records.files import whole
with whole(pathlib.Path(sys.argv[1])) as file:
    file.write(b'half')
    file.flush()
    os.kill(os.getpid(), 9)
"""


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
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -signal.SIGKILL
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


def test_what_a_killed_write_leaves_is_removed_and_what_is_being_written_is_not(tmp_path):
    notes = tmp_path / ".notes.tmp"
    notes.write_text("mine")
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a"], check=False)
    with files.whole(tmp_path / "b") as file:
        file.write(b"new")
        assert sum(files.is_temporary(path.name) for path in tmp_path.iterdir()) == 2
        files.remove_temporary(tmp_path)
        assert sum(files.is_temporary(path.name) for path in tmp_path.iterdir()) == 1
    assert (tmp_path / "b").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"b", ".notes.tmp"}


def test_a_link_or_a_folder_with_the_name_of_a_temporary_file_is_left_alone(linked):
    link, outside = linked
    (link.parent / f".{'0' * 16}.tmp").symlink_to(outside)
    (link.parent / f".{'1' * 16}.tmp").mkdir()
    files.remove_temporary(link.parent)
    assert outside.read_text() == "mine"
    assert sum(files.is_temporary(path.name) for path in link.parent.iterdir()) == 2


def test_a_write_begins_again_if_its_file_was_taken_for_a_left_one(tmp_path, monkeypatch):
    lock, calls = files.fcntl.flock, []

    def late(file, how):
        calls.append(file.name)
        if len(calls) == 1:  # another process came between opening and locking
            Path(file.name).unlink()
        lock(file, how)

    monkeypatch.setattr(files.fcntl, "flock", late)
    write_text(tmp_path / "a", "whole")
    assert len(calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_write_leaves_is_known_by_its_name(tmp_path):
    with files.whole(tmp_path / "a.json"):
        (left,) = tmp_path.iterdir()
        assert files.is_temporary(left.name)
    assert not files.is_temporary("a.json")
    assert not files.is_temporary(".notes.tmp")
