"""The report: one file that needs no other, whatever became of the trials."""
import html.parser
import re

import pytest

from fastnet.sweep import lr_sweep
from fastnet.sweep.show.charts import Chart, colour, heat
from fastnet.sweep.show.report import page
from tests.sweeps import network, small
from tests.test_sweep_result import made_up, nan


class Balanced(html.parser.HTMLParser):
    """Sees that every tag is closed, and collects what is drawn."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.attributes += attributes
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    found = Balanced()
    found.feed(text)
    assert not found.open
    return found


@pytest.fixture(scope="module")
def halved():
    return lr_sweep(**small(lrs="0.001:1e4:log12", seeds=5, epochs=8, search="halving",
                            build={"<b>": network(12, 9, 3), "deep": network(12, 9, 5, 3)}))


def test_one_file_that_needs_no_other(halved, tmp_path):
    halved.save_report(tmp_path / "report.html", "fastnet sweep --halving", "data & more")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = parsed(text)
    assert not re.search(r"(src|href)=|https?://|@import|url\((?!#)", text)
    assert found.seen.count("svg") == 2 * 7  # for each network: three curves, four metrics
    assert "data &amp; more" in text and "fastnet sweep --halving" in text and "&lt;b&gt;" in text and "<b>, " not in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    assert "stopped" in text and "diverged" in text and "nan" not in re.sub(r"<script>.*", "", text).lower().replace("finance", "")
    assert {value for name, value in found.attributes if name == "data-value"} >= {"<b>", "deep", "seed", "name"}


def test_curves_can_be_picked_out(halved):
    found = parsed(page(halved, "", "x"))
    rates = {f"{lr:g}" for lr in halved.lrs}
    assert {value for name, value in found.attributes if name == "data-lr"} == rates
    assert found.seen.count("button") == 2 * len(rates)


def test_a_grid_that_finds_itself_shows_its_range_test():
    assert "Range test" in page(lr_sweep(**small(lrs="auto", test=None)), "", "x")


@pytest.mark.parametrize("accuracies", [[[nan]] * 4, [[None]] * 4, [[0.5]] * 4, [[0.5, nan], [0.5, 0.6], [None, None],
                                                                                [nan, nan]]], ids=str)
def test_reports_of_little(accuracies):
    parsed(page(made_up(accuracies), "", "x"))
    parsed(page(made_up([accuracies[0]], lrs=(0.1,)), "", "x"))


def test_charts_place_their_points():
    chart = Chart((0.01, 1), (0, 1), "x", "y", log=True)
    (left, bottom), (middle, half), (right, top) = chart.at(0.01, 0), chart.at(0.1, 0.5), chart.at(1, 1)
    assert left < middle < right and top < half < bottom
    assert middle == pytest.approx((left + right) / 2, abs=0.2) and half == pytest.approx((top + bottom) / 2, abs=0.2)
    assert chart.path([0.1], [nan]) == "" and colour(0) != colour(1)
    assert heat([("a", [(nan, "-"), (0.5, "x")])], ["1", "2"], "c").count("background") == 1


def test_the_work_is_linear_in_the_trials(monkeypatch):
    """Two thousand trials in a second or two: no curve looks through all records again."""
    from fastnet.sweep.show import report

    looked = []
    monkeypatch.setattr(report, "_all", lambda result, all_of=report._all: looked.append(1) or all_of(result))
    counts = []
    for rates in (20, 40):
        looked.clear()
        page(made_up([[0.5 + 0.001 * i, 0.6] for i in range(rates)], lrs=tuple(float(i + 1) for i in range(rates))), "", "x")
        counts.append(len(looked))
    assert counts[0] == counts[1]
