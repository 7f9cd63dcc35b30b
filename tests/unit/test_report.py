"""The report as a whole: files, pictures, Markdown and HTML."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from synthetic_runs import synthetic_run

from mpi_dcasgd.errors import RunFolderError, UserError
from mpi_dcasgd.reporting.collect import collect
from mpi_dcasgd.reporting.curves import draw_curves
from mpi_dcasgd.reporting.document import (
    Block,
    Bullets,
    Heading,
    Image,
    Paragraph,
    Table,
    to_html,
    to_markdown,
)
from mpi_dcasgd.reporting.groups import group_runs
from mpi_dcasgd.reporting.references import job_references
from mpi_dcasgd.reporting.write import ReportWithoutPlotsError, write_report

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grid")
    for seed in (1, 2):
        synthetic_run(root, "sgd", seed=seed, rate=4_000, epochs=3)
        for algorithm in ("ssgd", "asgd"):
            for workers in (2, 4):
                synthetic_run(root, algorithm, workers=workers, seed=seed, epochs=3)
    synthetic_run(root, "asgd", seed=3, status="failed")
    return root


def test_a_report_puts_predicted_beside_measured(tmp_path: Path) -> None:
    for driver in (None, "simulator"):
        synthetic_run(tmp_path / "runs", "asgd", driver=driver, epochs=3)
    report = write_report([tmp_path / "runs"], tmp_path / "report")
    text = report.markdown.read_text()
    assert "## Predicted and measured" in text
    assert "| algorithm | workers | samples/s measured | predicted | % |" in text
    assert "asgd, simulated" in report.table
    assert "staleness.png" in [path.name for path in report.plots]


def test_a_report_ends_with_the_papers_whose_rules_were_used(tmp_path: Path) -> None:
    rules = {
        "asgd": {},
        "dcasgd-a": {"compensation": {"name": "dc-adaptive", "dc_lambda": 2.0}},
        "adaptive-asgd": {"step_size": {"name": "delay-adaptive"}},
    }
    for algorithm, rule in rules.items():
        synthetic_run(tmp_path / "runs", algorithm, epochs=3, job={"rule": rule})
    report = write_report([tmp_path / "runs"], tmp_path / "report")
    text = report.markdown.read_text()
    assert text.partition("## References\n\n")[2].splitlines() == [
        "- Konstantin Mishchenko, Francis Bach, Mathieu Even, Blake Woodworth. Asynchronous SGD"
        " Beats Minibatch SGD Under Arbitrary Delays. NeurIPS, 2022. arXiv:2206.07638.",
        "- Shuxin Zheng, Qi Meng, Taifeng Wang, Wei Chen, Nenghai Yu, Zhi-Ming Ma, Tie-Yan Liu."
        " Asynchronous Stochastic Gradient Descent with Delay Compensation. ICML, 2017."
        " arXiv:1609.08326.",
    ]
    page = report.html.read_text().partition("<summary>References</summary>")[2]
    assert page.count("<li>") == 2
    assert "arXiv:1609.08326" in page


@pytest.mark.parametrize(
    ("settings", "families"),
    [
        ({"algorithm": "asgd"}, []),
        ({"algorithm": "asgd", "rule.compensation.name": "dc-constant"}, ["Zheng"]),
        ({"algorithm": "dana-dc"}, ["Zheng", "Hakimi"]),
        ({"algorithm": "dcasgd-a", "rule.compensation.name": "none"}, []),
        ({"algorithm": "dcasgd-a", "rule.compensation.name": "my_rules:Own"}, []),
        ({"algorithm": "dcasgd-a", "rule.compensation.dc_lambda": "of another version"}, ["Zheng"]),
        ({"algorithm": "of another version"}, []),
        (
            {
                "algorithm": "sgd",
                "rule.weight_decay.rate": 1.0,
                "rule.weight_decay.place": "inside",
            },
            [],
        ),
        (
            {
                "algorithm": "sgd",
                "rule.weight_decay.rate": 1.0,
                "rule.weight_decay.place": "decoupled",
            },
            ["Loshchilov"],
        ),
    ],
)
def test_the_papers_are_those_of_the_parts_of_the_job(
    settings: dict[str, object], families: list[str]
) -> None:
    assert [each.authors[0].split()[-1] for each in job_references(settings)] == families


def test_a_report_has_tables_pictures_settings_and_what_failed(grid: Path, tmp_path: Path) -> None:
    report = write_report([grid], tmp_path / "new" / "report", 0.1)
    names = [
        *("error_vs_epochs.png", "error_vs_time.png", "time_to_target.png"),
        *("staleness.png", "throughput.png"),
        *("closer_staleness_over_time.png", "closer_staleness_by_worker.png"),
    ]
    assert [path.name for path in report.plots] == names
    assert all(path.read_bytes().startswith(PNG) for path in report.plots)
    text = report.markdown.read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Comparison: digits",
        "## Verdict",
        "## Result",
        "## Until 10 % test error",
        "## Why sooner or later",
        "## Cost",
        "## Plots",
        "## Where the workers' time went",
        "## How unequal the workers were",
        "## Looking closer",
        "## Who waits, run by run",
        "## Settings of all runs",
        "## Hardware and software",
        "## Runs that are not in the comparison",
        "## Runs",
    ]
    assert "| algorithm | workers | runs | test error % |" in text
    assert "![Test error against epochs](error_vs_epochs.png)" in text
    assert "| batch_size | 50 |" in text
    assert "rank 2 on c7: out of memory" in text
    assert "| processor | Imagined CPU (64 logical) |" in text
    there = {path.name for path in report.markdown.parent.iterdir()}
    steps = {name for name in there if name.startswith("timeline-")}
    assert len(steps) == sum(len(g.runs) for g in report.groups if not g.sequential)
    assert there == {*names, *steps, "report.md", "report.html"}


def test_the_terminal_gets_the_same_rows(grid: Path, tmp_path: Path) -> None:
    report = write_report([grid], tmp_path, 0.1)
    cells = [line.split("  ") for line in report.table.splitlines()]
    shown = ["|".join(cell.strip() for cell in line if cell.strip()) for line in cells]
    markdown = report.markdown.read_text().splitlines()
    rows = ["|".join(c.strip() for c in m.strip("|").split("|")) for m in markdown]
    for group in report.groups:
        [row] = [
            line
            for line in shown[: 2 + len(report.groups)]
            if line.startswith(f"{group.algorithm}|")
            and line.split("|")[1] == ("-" if group.sequential else str(group.num_workers))
        ]
        assert row in rows
    assert "until 10 % test error:" in report.table
    assert "(failed): rank 2 on c7: out of memory" in report.table


@pytest.mark.parametrize("against", ["epochs", "wall-clock"])
def test_the_panels_of_a_plot_have_room_for_every_curve(tmp_path: Path, against: str) -> None:
    for workers, first_error in ((2, 0.2), (4, 0.5)):
        synthetic_run(tmp_path, workers=workers, first_error=first_error, final_error=0.15)
    figure = Figure()
    groups = group_runs(collect([tmp_path]).runs)
    draw_curves(figure, groups, "digits", "error", in_epochs=against == "epochs")
    drawn = [value for axis in figure.axes for line in axis.lines for value in line.get_ydata()]
    assert max(drawn) > 30
    for axis in figure.axes:
        low, high = axis.get_ylim()
        assert low == 0
        assert high >= max(drawn)


def test_the_html_needs_no_other_file(grid: Path, tmp_path: Path) -> None:
    page = write_report([grid], tmp_path).html.read_text()
    assert page.count("data:image/png;base64,") == 7
    assert "<title>Comparison: digits</title>" in page
    assert 'src="error' not in page
    assert "http" not in page


def test_without_matplotlib_everything_else_is_written(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportWithoutPlotsError, match=r"pip install 'mpi-dcasgd\[plots\]'") as info:
        write_report([grid], tmp_path)
    assert isinstance(info.value, UserError)
    assert str(tmp_path / "report.md") in str(info.value)
    assert "asgd" in info.value.report.table
    text = info.value.report.markdown.read_text()
    assert "| asgd | 4 | 2 |" in text
    assert "no plots: matplotlib cannot be imported" in text
    assert not list(tmp_path.glob("*.png"))
    assert "asgd" in info.value.report.html.read_text()


def test_only_failed_runs_still_make_a_report(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "runs", status="failed")
    report = write_report([run], tmp_path / "report")
    assert report.groups == report.plots == ()
    assert [unfinished.status for unfinished in report.unfinished] == ["failed"]
    assert report.table == (
        f"not compared: {run} (failed): rank 2 on c7: out of memory; reached epoch 5"
    )
    assert "rank 2 on c7" in report.markdown.read_text()


def test_a_single_sequential_run_makes_a_report(tmp_path: Path) -> None:
    report = write_report([synthetic_run(tmp_path / "runs", "sgd")], tmp_path / "report")
    assert [path.name for path in report.plots] == ["error_vs_epochs.png", "error_vs_time.png"]
    assert report.table.splitlines()[2].startswith("sgd")


def test_more_algorithms_than_colours_can_be_drawn(tmp_path: Path) -> None:
    for number in range(11):
        synthetic_run(tmp_path / "runs", f"rule-{number}", epochs=2, final_error=0.0)
    report = write_report([tmp_path / "runs"], tmp_path / "report")
    assert len(report.groups) == 11
    assert "staleness.png" in [path.name for path in report.plots]


def test_a_folder_that_cannot_be_written_is_named(grid: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match=r"file/report: cannot be made"):
        write_report([grid], tmp_path / "file" / "report")


def test_markdown_and_html_are_made_of_the_same_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    blocks: list[Block] = [
        Heading(1, "A & B"),
        Paragraph("one < two"),
        Bullets(("x", "y")),
        Table(("name", "n"), (("a|b", "1"),)),
        Image(tmp_path / "a.png", 'the "picture"'),
    ]
    assert to_markdown(blocks) == (
        "# A & B\n\none < two\n\n- x\n- y\n\n"
        "| name | n |\n| :--- | ---: |\n| a\\|b | 1 |\n\n"
        '![the "picture"](a.png)\n'
    )
    page = to_html(blocks)
    assert "<h1>A &amp; B</h1>" in page
    assert "<p>one &lt; two</p>" in page
    assert '<td class="left">a|b</td><td>1</td>' in page
    assert '<img alt="the &quot;picture&quot;" src="data:image/png;base64,iVBORw0KGgo=">' in page
