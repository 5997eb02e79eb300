"""Progress in a notebook, by a display that remembers; and in a real kernel, where one is installed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mneme.options.notebook import in_notebook


class Display:
    """What IPython's display gives back for an output that can be written over."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, str]] = []

    def __call__(self, data: dict[str, str], *, raw: bool, display_id: bool) -> "Display":
        assert raw
        assert display_id
        self.outputs.append(data)
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.outputs.append(data)


def test_bars_are_written_over_and_gone_at_the_end() -> None:
    display, now = Display(), [0.0]
    with in_notebook(display, lambda: now[0]) as track:
        advance = track("own <words>", 100)
        other = track("survey", None)
        now[0] = 10.0
        advance(40)
        other(7)
    shown = [one["text/plain"] for one in display.outputs]
    assert "own <words>: 40%, about 15 s left\nsurvey: 0" in shown
    html = next(one["text/html"] for one in display.outputs if 'value="40"' in one["text/html"])
    assert "own &lt;words&gt;" in html
    assert '<progress value="40" max="100">' in html
    assert display.outputs[-1] == {"text/html": "", "text/plain": ""}


def test_output_is_not_written_at_every_step() -> None:
    display, now = Display(), [0.0]
    with in_notebook(display, lambda: now[0]) as track:
        advance = track("words", 1000)
        for _ in range(1000):
            now[0] += 0.001
            advance(1)
    assert len(display.outputs) < 10


def test_nothing_is_left_where_work_fails() -> None:
    display = Display()
    with pytest.raises(ZeroDivisionError), in_notebook(display) as track:
        track("words", 1 // 0)
    assert display.outputs[-1]["text/html"] == ""


@pytest.mark.slow
def test_in_a_real_kernel(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    nbformat: Any = pytest.importorskip("nbformat")
    code = "import mneme\nwith mneme.Progress().bars() as track:\n    move = track('reading', 4)\n    move(4)\nprint('done')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "x",
        "language": "python",
    }
    (tmp_path / "kernels" / "here").mkdir(parents=True)
    (tmp_path / "kernels" / "here" / "kernel.json").write_text(json.dumps(spec), "utf-8")
    client = nbclient.NotebookClient(
        notebook, timeout=200, kernel_name="here", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(tmp_path / "kernels")]
    client.execute()
    outputs = notebook.cells[0].outputs
    assert any(one.get("text", "") == "done\n" for one in outputs)
    assert [one.output_type for one in outputs].count("display_data") == 1, "one output, written over"
