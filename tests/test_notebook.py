"""Progress in a notebook, by a display that remembers; and in a real kernel, where one is installed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mneme.options.notebook import in_notebook
from tests.report.sample import sample_report


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


def in_a_kernel(code: str, folder: Path) -> list[Any]:
    """Outputs of one cell that a real kernel in `folder` has run."""
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    nbformat: Any = pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "x",
        "language": "python",
    }
    (folder / "kernels" / "here").mkdir(parents=True)
    (folder / "kernels" / "here" / "kernel.json").write_text(json.dumps(spec), "utf-8")
    client = nbclient.NotebookClient(notebook, timeout=200, kernel_name="here", resources={"metadata": {"path": str(folder)}})
    client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(folder / "kernels")]
    client.execute()
    found: list[Any] = notebook.cells[0].outputs
    return found


@pytest.mark.slow
def test_in_a_real_kernel(tmp_path: Path) -> None:
    code = "import mneme\nwith mneme.Progress().bars() as track:\n    move = track('reading', 4)\n    move(4)\nprint('done')"
    outputs = in_a_kernel(code, tmp_path)
    assert any(one.get("text", "") == "done\n" for one in outputs)
    assert [one.output_type for one in outputs].count("display_data") == 1, "one output, written over"


@pytest.mark.slow
def test_the_lines_of_the_readme_show_the_report_in_a_notebook(tmp_path: Path) -> None:
    """Written as they stand there, with the report as the last word of the cell, as a person at a notebook has it."""
    page = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    code = page.partition("<!-- tested -->\n```python\n")[2].partition("```")[0]
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    report = sample_report()
    (tmp_path / "runs" / "demo" / "report.json").write_text(report.to_json(), "utf-8")
    outputs = in_a_kernel(f"{code}\nreport", tmp_path)
    said = "".join(one.get("text", "") for one in outputs)
    assert said.startswith(f"{report.verdict} - {report.reason}\n")
    shown = next(one.data["text/html"] for one in outputs if one.output_type == "execute_result")
    assert report.effects[0].area in shown
    assert "Traceback" not in said
