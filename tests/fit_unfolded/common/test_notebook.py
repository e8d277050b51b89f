import rich.console
import rich.jupyter

from fit_unfolded.common.notebook import printed


def test_a_result_is_displayed_once(monkeypatch):
    displayed = []
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(rich.jupyter, "display", lambda *_: displayed.append("line"))
    rich.console.Console().print("as rich does it in a notebook")
    assert displayed == ["line"]
    assert "text" in printed(lambda console: console.print("text"))
    assert displayed == ["line"]
