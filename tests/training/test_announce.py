"""What takes long is announced, once, and what does not is not."""

import threading

from rich.console import Console

from fa_jax.training import announce


def test_only_what_takes_longer_than_the_patience_is_announced(monkeypatch, capsys):
    printed = threading.Event()
    monkeypatch.setattr(announce, "say", lambda console, text: (console.print(text), printed.set()))
    with announce.announced("loading"):
        pass
    monkeypatch.setattr(announce, "PATIENCE", 0.0)
    with announce.announced("compiling", Console()):
        assert printed.wait(10)
    assert capsys.readouterr().out == "compiling\n"
